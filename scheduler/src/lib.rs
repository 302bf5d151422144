//! Decides: admits jobs, splits them, hands out chunks, watches the fleet.
