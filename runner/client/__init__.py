"""The one door to HTTP: nobody else imports an HTTP library."""
