"""What clients, functions and a service that was taken over may say, made up by hypothesis."""
