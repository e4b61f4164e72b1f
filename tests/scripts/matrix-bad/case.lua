local body = function(cell) return cell.id end
for _, wrong in ipairs({
    { axes = { n = {} } }, { axes = { n = { {} } } }, { axes = { 1 } }, { axes = { id = { 1 } } },
    { exclude = { { m = 1 } }, axes = { n = { 1 } } }, { parallel = 0, axes = { n = { 1 } } },
    { axis = { n = { 1 } } }, { from = "no-such-image", axes = { n = { 1 } } }, { timeout = "x", axes = { n = { 1 } } },
}) do
    local ok, got = pcall(matrix, "m", wrong, body)
    print(ok and got.cells[1].message or got)
end
matrix("m", { axes = { n = { 1 } } })
