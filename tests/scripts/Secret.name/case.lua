print(secret("API_TOKEN").name)
