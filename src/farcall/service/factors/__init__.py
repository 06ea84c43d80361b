"""The second factor of the service's own accounts: enrolment, use, recovery codes."""
