secret("NO_SUCH_TOKEN")
