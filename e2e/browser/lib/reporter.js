// One line a test, what went wrong with those that failed, and at the end "N passed, M failed".
const summary = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/; // node's own, which is not wanted

export default async function* reporter(events) {
	let passed = 0;
	let failed = 0;
	for await (const { type, data } of events) {
		if (type === "test:stdout" || type === "test:stderr") yield data.message;
		if (type === "test:diagnostic" && !summary.test(data.message)) yield `       ${data.message}\n`;
		if (type !== "test:pass" && type !== "test:fail") continue;
		if (data.details.type === "suite") continue;
		const seconds = (data.details.duration_ms / 1000).toFixed(1);
		if (data.skip !== undefined) {
			yield `skip   ${data.name} (${data.skip})\n`;
		} else if (type === "test:pass") {
			passed++;
			yield `ok     ${data.name} (${seconds} s)\n`;
		} else {
			failed++;
			const error = data.details.error;
			yield `FAILED ${data.name} (${seconds} s)\n${String(error.cause?.stack ?? error.stack).replace(/^/gm, "       ")}\n`;
		}
	}
	yield `${passed} passed, ${failed} failed\n`;
}
