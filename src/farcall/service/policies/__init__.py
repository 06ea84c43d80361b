"""Authentication policies, their projects, and subscriptions: on what terms an endpoint may be used."""
