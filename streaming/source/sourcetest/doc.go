// Package sourcetest holds what every source must pass, and the sink to test it with.
//
// A source's tests call Run with a Fixture that says how to change the system behind the source and what it holds. The
// suite runs the source against the real system and compares.
package sourcetest
