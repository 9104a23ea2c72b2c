"""The HTTP API: LeadConduit's own calls at the root, and what goes beyond them below /api/v1."""
