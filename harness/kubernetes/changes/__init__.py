"""Changes of objects that others own: scales, rollouts and cordons, and how they are put back."""
