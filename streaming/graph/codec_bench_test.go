package graph_test

import (
	"testing"

	"github.com/perdure/perdure/streaming/graph"
)

const rowsPerMessage = 1000

func BenchmarkEncode(b *testing.B) {
	tx := orders(rowsPerMessage)
	var e graph.Encoder
	b.ReportAllocs()
	for b.Loop() {
		e.Begin()
		e.Add(&tx)
		b.SetBytes(int64(len(e.Finish("1/0"))))
	}
	b.ReportMetric(float64(b.N)*rowsPerMessage/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkDecode(b *testing.B) {
	tx := orders(rowsPerMessage)
	var e graph.Encoder
	e.Begin()
	e.Add(&tx)
	data := e.Finish("1/0")
	var d graph.Decoder
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*rowsPerMessage/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkDecodeElement(b *testing.B) {
	tx := orders(1)
	data := graph.AppendElement(nil, &tx.Changes[0].Element)
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := graph.DecodeElement(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("shared", func(b *testing.B) {
		var d graph.Decoder
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := d.Element(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeValue(b *testing.B) {
	for name, v := range map[string]graph.Value{"int": graph.Int(123456), "string": graph.String("customer name")} {
		data := graph.AppendValue(nil, v)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := graph.DecodeValue(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
