"""Update rules of the online learners."""
