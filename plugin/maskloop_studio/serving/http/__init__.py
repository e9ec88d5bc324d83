"""What stands between the socket and the routes: connections, credentials, bodies, JSON, metrics."""
