package workflows

import (
	"encoding/json"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"
)

// Interceptor returns what every worker and replayer of these workflows needs among its interceptors. It puts all
// signals of a workflow, whatever their names, into one queue. The SDK's channels, one for each name, lose the order of
// "stop" and "resume" that arrive while no worker runs, and drop signals that nobody listens for without a word. Data is the
// client's converter, which decrypts; nil where it is the SDK's.
func Interceptor(data converter.DataConverter) interceptor.WorkerInterceptor {
	if data == nil {
		data = converter.GetDefaultDataConverter()
	}
	return &workerInterceptor{data: data}
}

type workerInterceptor struct {
	interceptor.WorkerInterceptorBase
	data converter.DataConverter
}

// InterceptWorkflow implements interceptor.WorkerInterceptor.
func (i *workerInterceptor) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &inbound{WorkflowInboundInterceptorBase: interceptor.WorkflowInboundInterceptorBase{Next: next}, data: i.data}
}

type inbound struct {
	interceptor.WorkflowInboundInterceptorBase
	data  converter.DataConverter
	inbox inbox
}

// ExecuteWorkflow implements interceptor.WorkflowInboundInterceptor.
func (i *inbound) ExecuteWorkflow(ctx workflow.Context, in *interceptor.ExecuteWorkflowInput) (any, error) {
	return i.Next.ExecuteWorkflow(workflow.WithValue(ctx, inboxKey{}, &i.inbox), in)
}

// HandleSignal implements interceptor.WorkflowInboundInterceptor.
func (i *inbound) HandleSignal(_ workflow.Context, in *interceptor.HandleSignalInput) error {
	s := signal{name: in.SignalName}
	if payloads := in.Arg.GetPayloads(); len(payloads) > 0 {
		s.unreadable = i.data.FromPayload(payloads[0], &s.payload)
	}
	i.inbox.signals = append(i.inbox.signals, s)
	return nil
}

// signal is a signal as it arrived; looking into its payload is for whoever handles it, so that a malformed one is
// answered instead of dropped.
type signal struct {
	name       string
	payload    converter.RawValue
	unreadable error // encrypted, and changed since
}

// decode reads the payload, which is JSON.
func (s signal) decode(into any) error {
	if s.unreadable != nil {
		return s.unreadable
	}
	return json.Unmarshal(payloadData(s.payload), into)
}

// inbox holds the signals of one run of a workflow, in order.
type inbox struct{ signals []signal }

type inboxKey struct{}

func inboxOf(ctx workflow.Context) *inbox {
	i, ok := ctx.Value(inboxKey{}).(*inbox)
	if !ok {
		panic("the worker lacks the interceptor that workflows.Interceptor returns")
	}
	return i
}

func (i *inbox) empty() bool { return len(i.signals) == 0 }

func (i *inbox) take() []signal {
	all := i.signals
	i.signals = nil
	return all
}
