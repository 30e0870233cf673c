//! Starting, stopping, restarting, and what a node refuses to start with.
