//! History checkers: linearizability, transactions, convergence, sessions.
//!
//! Empty so far. The checks that the demo and the protocols' own tests make stand beside them; the general ones, with
//! an open history format, come with the simulator.
