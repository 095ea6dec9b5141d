import { describe, expect, it } from "vitest";
import { asUploadError, localError, problem, retryAfter, UploadError } from "../src/problem.js";

const answer = (status: number, body: string, headers: Record<string, string> = {}) => ({ status, body, header: (name: string) => headers[name] ?? null });

describe("an answer", () => {
	it("of the server says what is wrong and what to do", () => {
		const body = JSON.stringify({ type: "/problems/incomplete", title: "Chunks are missing", status: 409, detail: "Send them.", code: "incomplete", request_id: "r", missing: [[1, 2]] });
		const e = problem(answer(409, body));
		expect(e).toBeInstanceOf(Error);
		expect(e).toMatchObject({ code: "incomplete", message: "Chunks are missing", detail: "Send them.", requestId: "r", status: 409, retryable: false, missing: [[1, 2]] });
	});

	it.each([
		[408, true], [409, false], [413, false], [422, false], [425, true], [429, true], [500, true], [503, true], [507, true],
	])("%i may be tried again: %s", (status, retryable) => {
		expect(problem(answer(status, '{"code":"x"}')).retryable).toBe(retryable);
	});

	it.each([[502, "network", true], [504, "network", true], [500, "bad_answer", true], [403, "bad_answer", false], [413, "bad_answer", false]])(
		"%i of something between is %s", (status, code, retryable) => {
			for (const body of ["<html>nginx</html>", "", "null", "{}"]) {
				expect(problem(answer(status, body, { "X-Request-Id": "i" }))).toMatchObject({ code, retryable, status, requestId: "i" });
			}
		},
	);
});

it("Retry-After is seconds or a date", () => {
	expect(retryAfter("3", 0)).toBe(3000);
	expect(retryAfter("Wed, 25 Nov 2026 14:00:05 GMT", Date.parse("2026-11-25T14:00:00Z"))).toBe(5000);
	expect(retryAfter("Wed, 25 Nov 2026 14:00:00 GMT", Date.parse("2026-11-25T14:00:05Z"))).toBe(0);
	expect(retryAfter("soon", 0)).toBeNull();
	expect(retryAfter(null, 0)).toBeNull();
});

it("a defect is told as itself", () => {
	expect(asUploadError(new TypeError("x is not a function"))).toMatchObject({ code: "internal", detail: "x is not a function", retryable: false });
	const e = localError("stalled");
	expect(asUploadError(e)).toBe(e);
});

it("again() changes nothing else", () => {
	const e = new UploadError("digest_mismatch", "t", "d", { status: 422, requestId: "r", missing: [[0, 0]], retryAfter: 1 });
	expect({ ...e.again() }).toEqual({ ...e, retryable: true });
	expect(e.again().message).toBe("t");
});
