package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRestoredFromAnOldCopy: a node's directory is lost, and an old copy of it is put in its place (fault 25). What
// the store has is served, what is lost says so, and nothing comes back wrong.
func TestRestoredFromAnOldCopy(t *testing.T) {
	seeded(t)
	f := newFleet(t, 3)
	f.start()
	m, other := f.nodes[2], f.nodes[0]
	body := func(i uint64) []byte { return content(*seed+i, 2*chunkSize+17) }
	put := func(m *member, i uint64) string {
		t.Helper()
		var file struct{ ID string }
		m.must(t, "POST", fmt.Sprint("/v1/files?name=f", i), rawHeader, body(i), 201).decode(t, &file)
		return file.ID
	}
	var before, during struct{ ID string }
	m.must(t, "POST", "/v1/uploads", jsonHeader, []byte(fmt.Sprintf(`{"name":"before","size":%d,"chunk_size":%d}`, len(body(1)), chunkSize)), 201).decode(t, &before)
	m.must(t, "PUT", "/v1/uploads/"+before.ID+"/chunks/0", nil, body(1)[:chunkSize], 204)
	stored := put(m, 2)
	m.waitStored(stored)

	// The copy is made while the node is stopped; then it goes on.
	m.stop()
	old := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", m.data, old).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.start()
	m.must(t, "PUT", "/v1/uploads/"+before.ID+"/chunks/1", nil, body(1)[chunkSize:2*chunkSize], 204)
	m.must(t, "POST", "/v1/uploads", jsonHeader, []byte(fmt.Sprintf(`{"name":"during","size":%d,"chunk_size":%d}`, len(body(3)), chunkSize)), 201).decode(t, &during)
	late := put(m, 4)
	m.waitStored(late)
	m.worker.stop()
	lost := put(m, 5) // only in its staging

	m.kill()
	if err := os.RemoveAll(m.data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, m.data); err != nil {
		t.Fatal(err)
	}
	m.start()
	u := f.client(t, f)
	for id, i := range map[string]uint64{stored: 2, late: 4} {
		u.compare(t.Context(), finished{id: id, seed: *seed + i, size: len(body(i))})
	}
	for _, n := range f.nodes {
		n.must(t, "GET", "/v1/files/"+lost+"/content", nil, nil, 410)
	}
	// It says so for good: this is the node's directory now, and nobody else has the bytes.
	m.waitFor(lost, "its transfer to end", func(a answer) bool { return strings.Contains(string(a.body), `"state":"dead"`) })
	other.must(t, "PUT", "/v1/uploads/"+during.ID+"/chunks/0", nil, body(3)[:chunkSize], 404)
	// What the copy has goes on from where the copy stood: the chunk that came later is missing again.
	time.Sleep(2500 * time.Millisecond) // what was told of it before is believed for so long
	if a := other.must(t, "GET", "/v1/uploads/"+before.ID, nil, nil, 200); !strings.Contains(string(a.body), `"missing":[[1,2]]`) {
		t.Errorf("status: %s", a.body)
	}
	for i := range 3 {
		u.until("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", before.ID, i), nil, body(1)[i*chunkSize:min((i+1)*chunkSize, len(body(1)))], 204)
	}
	var file struct{ ID string }
	u.until("POST", "/v1/uploads/"+before.ID+"/complete", jsonHeader, []byte("{}"), 201).decode(t, &file)
	u.compare(t.Context(), finished{id: file.ID, seed: *seed + 1, size: len(body(1))})
	put(m, 6)

	f.stop()
	cmd := exec.Command(binary, "doctor", "--repair", "--data", m.data)
	cmd.Env = append(os.Environ(), m.env...)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "found and repaired") {
		t.Errorf("gantry doctor --repair: %v\n%s", err, out)
	}
	for _, n := range f.nodes {
		n.doctor()
	}
}

// TestTwoCopiesOfANode: a directory is copied, and both copies are started on different machines. The server that started
// first ends, because requests go to the one that started last. So do its transfers: what they have not got is not lost.
func TestTwoCopiesOfANode(t *testing.T) {
	seeded(t)
	f := newFleet(t, 2)
	f.start()
	m, other := f.nodes[1], f.nodes[0]
	body := content(*seed, 2*chunkSize)
	var up struct{ ID string }
	m.must(t, "POST", "/v1/uploads", jsonHeader, []byte(fmt.Sprintf(`{"name":"open","size":%d,"chunk_size":%d}`, len(body), chunkSize)), 201).decode(t, &up)
	m.must(t, "PUT", "/v1/uploads/"+up.ID+"/chunks/0", nil, body[:chunkSize], 204)
	m.stop()
	twin := &member{server: newBareServer(t, "--transfer-process", "--transfer-lease", leaseTTL.String())}
	if out, err := exec.Command("cp", "-a", m.data+"/.", twin.data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.start()
	twin.env = append([]string{}, m.env...)
	for i, setting := range twin.env {
		if strings.HasPrefix(setting, "GANTRY_CLUSTER_ADDRESS=") {
			twin.env[i] = "GANTRY_CLUSTER_ADDRESS=http://" + twin.addr
		}
	}
	twin.worker = newTransfers(twin.server)
	twin.server.start()
	// Only the transfers of the old copy run. They are told of files whose bytes they have not got.
	var files []finished
	for i := range uint64(20) {
		file := finished{seed: *seed + 100 + i, size: 3000}
		var made struct{ ID string }
		twin.must(t, "POST", fmt.Sprint("/v1/files?name=f", i), rawHeader, content(file.seed, file.size), 201).decode(t, &made)
		file.id = made.ID
		files = append(files, file)
	}
	m.server.waitEnd("Another process has started")
	m.worker.waitEnd("Another process has started")
	for _, n := range other.registry(t).Items {
		if n.ID == m.id() && n.Address != "http://"+twin.addr {
			t.Errorf("the node is at %s", n.Address)
		}
	}
	twin.worker.start()
	u := f.client(t, other)
	for _, file := range files {
		twin.waitStored(file.id)
		u.compare(t.Context(), file)
	}
	// The upload that both copies have goes on in the one that is the node.
	for i := range 2 {
		u.until("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", up.ID, i), nil, body[i*chunkSize:(i+1)*chunkSize], 204)
	}
	var file struct{ ID string }
	u.until("POST", "/v1/uploads/"+up.ID+"/complete", jsonHeader, []byte("{}"), 201).decode(t, &file)
	u.compare(t.Context(), finished{id: file.ID, seed: *seed, size: len(body)})
}
