local process = sandbox("a"):spawn("printf 'one two'")
local text = ""
while true do
    local more = process:read()
    if more == nil then break end
    text = text .. more
end
print(text)
