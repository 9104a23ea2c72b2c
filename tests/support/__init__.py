"""What tests share: real servers, and hand-written fakes at a protocol."""
