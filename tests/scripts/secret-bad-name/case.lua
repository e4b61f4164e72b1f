secret("no such")
