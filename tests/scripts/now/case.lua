print(now() > 1000000000.0)
