"""HTTP views and streams of the roles."""
