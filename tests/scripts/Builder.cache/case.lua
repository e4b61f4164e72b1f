for _, text in ipairs({ "one", "two" }) do
    local made = base("b", function(b)
        b:cache("pip", "/root/cache")
        b:run("echo " .. text .. " >> /root/cache/log; cat /root/cache/log > /opt/log")
    end)
    print(sandbox({ from = made }):read("/opt/log"))
end
print(sandbox("a", { caches = { pip = "/c" } }):read("/c/log"))
base("c", function(b)
    b:cache("pip", "/a")
    b:cache("pip", "/b")
end)
