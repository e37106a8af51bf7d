"""The service on Ray: deployment, proxies, rollouts."""
