// Package workers says what runs where: which task queues a process serves, with which workflows and activities, and
// how it starts and stops.
package workers
