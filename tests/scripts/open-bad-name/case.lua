open("Not A Name")
