package mqtt

import "testing"

func TestParseMapperTopic(t *testing.T) {
	for _, kind := range []MapperTopicKind{MapperAnnounce, MapperHeartbeat, MapperBatch, MapperState, MapperAnswer, MapperBye,
		MapperWelcome, MapperDevices, MapperRead, MapperWrite, MapperProblem} {
		mapper, got, ok := ParseMapperTopic(MapperTopic("scpi", kind))
		if !ok || mapper != "scpi" || got != kind {
			t.Errorf("%s: %q %q %v", kind, mapper, got, ok)
		}
	}
	for _, topic := range []string{"mappers", "mappers/scpi", "mappers//batch", "mappers/scpi/", "mappers/scpi/batch/x", "devices/scpi/batch", "xmappers/scpi/batch"} {
		if _, _, ok := ParseMapperTopic(topic); ok {
			t.Errorf("%s was taken for a mapper's", topic)
		}
	}
	if !MapperBatch.FromMapper() || MapperWrite.FromMapper() || MapperTopicKind("batches").FromMapper() {
		t.Error("who publishes what is mixed up")
	}
}
