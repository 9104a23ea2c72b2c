"""All SQL of the store: one intent-named function a statement, bound parameters.

Every function takes a connection that its caller owns, and none commits. Triggers, grants and
functions inside the database are literal SQL in their migration.
"""
