"""Object stores: their client, and which URLs are addresses there. Not what lies in them (sources, remote)."""
