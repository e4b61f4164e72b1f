base("cc", function(b)
    b:run("true")
    error({ message = "no luck", hint = "try again" })
end)
