"""The engine behind HTTP, used like one in this process."""
