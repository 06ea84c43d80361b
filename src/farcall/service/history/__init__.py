"""What went on at endpoints, in numbers per minute: workers and waiting tasks, tasks that came and ended."""
