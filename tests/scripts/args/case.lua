-- args: one two
print(args())
