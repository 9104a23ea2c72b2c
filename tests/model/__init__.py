"""The protocol between writers, fence, workers and store as a model, explored exhaustively."""
