mod real; use real as _;
