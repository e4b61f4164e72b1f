assert_eq(1, 1.0)
assert_eq({ 1, { a = "x" } }, { 1, { a = "x" } }, "same")
assert_eq({ 1, "a" }, { 1, "b" }, "the lists")
