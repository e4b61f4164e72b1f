local net = network("net")
print(net.name)
print(net)
print(net.nmae)
