local report = matrix("m", { axes = { kind = { "junit", "libtest", "missing", "wrong" } } }, function(cell)
    local xml = "<testsuite><testcase classname='t' name='a'/><testcase name='b'><failure>src/t.c:7: no</failure></testcase><testcase name='c'><skipped/></testcase></testsuite>"
    local lines = '{"type":"test","event":"ok","name":"a"}\n{"type":"test","event":"failed","name":"b"}'
    local text = ({ junit = xml, libtest = lines })[cell.kind] or "neither"
    if cell.kind ~= "missing" then cell.sandbox:write("/tmp/results", text) end
    local found = cell:results("/tmp/results")
    fail(("%d passed, %d failed [\"%s\"], %d skipped of %d"):format(found.passed, found.failed, table.concat(found.failures, ", "), found.skipped, found.total))
end)
for _, cell in ipairs(report.cells) do print(cell.id .. ": " .. cell.message) end
