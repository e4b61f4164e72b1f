'x' is a number: it has no fields
a whole number is divided by zero
'..' does not work on table
argument 1 of string.rep() must be a string, got no value
the script's own
