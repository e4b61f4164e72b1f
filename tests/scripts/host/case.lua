local machine = host()
print("map")
host(1)
