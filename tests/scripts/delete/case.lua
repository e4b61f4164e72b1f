sandbox("a")
delete("a")
delete("a", { missing_ok = true })
delete("a")
