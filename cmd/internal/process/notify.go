package process

import (
	"context"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// lookEvery is how often the service manager is told how the process does, unless its watchdog wants to hear more often.
const lookEvery = 5 * time.Second

// Notify tells the service manager how the process does until ctx ends: ready once it is, why it is not, and as often as
// its watchdog wants, that it is alive. A process that is not alive says nothing, and is started anew. Without a service
// manager that asks (systemd's NOTIFY_SOCKET) it returns at once.
func Notify(ctx context.Context, ready func(context.Context) error, alive func() error, log *zap.Logger) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	every := lookEvery
	if watchdog, err := daemon.SdWatchdogEnabled(false); err == nil && watchdog > 0 {
		every = min(every, watchdog/3)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }()
	announced, complained := false, false
	for {
		state, err := "STATUS=ready", ready(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			state = "STATUS=" + err.Error()
		case !announced:
			state += "\n" + daemon.SdNotifyReady
		}
		if broken := alive(); broken == nil {
			state += "\n" + daemon.SdNotifyWatchdog
		} else {
			log.Error("the process cannot go on by itself", zap.Error(broken))
		}
		switch _, failed := daemon.SdNotify(false, state); {
		case failed == nil:
			announced = announced || err == nil
		case !complained:
			complained = true
			log.Warn("the service manager could not be told how the process does", zap.Error(failed))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
