base("c", function(b)
    b:copy("no-such-file", "/x")
end)
