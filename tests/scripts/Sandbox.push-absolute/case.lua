sandbox("a"):push("/etc/passwd", "/x")
