//! Does: claims chunks, runs subtasks, commits their outcomes, beats the heart.
