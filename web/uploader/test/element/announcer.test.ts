// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Announcer } from "../../src/element/announcer.js";
import { Counts } from "../../src/element/gauge.js";
import { UploadError } from "../../src/problem.js";
import { text } from "../../src/text.js";
import type { Phase } from "../../src/types.js";
import { FakeUploader } from "../fake-uploader.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function make(): { said: () => string; announcer: Announcer; counts: Counts } {
	const announcer = new Announcer(text("en"));
	const said = (): string => {
		announcer.element.textContent = "";
		vi.runAllTimers();
		return announcer.element.textContent ?? "";
	};
	return { said, announcer, counts: new Counts() };
}

function move(counts: Counts, from: Phase, to: Phase): void {
	counts.add(from, -1);
	counts.add(to, 1);
}

it("is a polite region", () => {
	const { element } = make().announcer;
	expect([element.role, element.getAttribute("aria-live")]).toEqual(["status", "polite"]);
});

it("tells the start, each quarter once, and the end", () => {
	const { said, announcer, counts } = make();
	const at = (fraction: number): string => {
		announcer.progress(counts, fraction);
		return said();
	};
	counts.add("uploading", 1);
	counts.add("queued", 1);
	expect(at(0)).toBe("Uploading 2 files");
	expect(at(0.1)).toBe("");
	expect(at(0.26)).toBe("25% uploaded");
	expect(at(0.3)).toBe("");
	expect(at(0.8)).toBe("75% uploaded");
	move(counts, "uploading", "done");
	expect(at(0.99)).toBe("");
	move(counts, "queued", "instant");
	expect(at(1)).toBe("2 files uploaded");
	expect(at(1)).toBe("");
});

it("does not tell a pause as the end", () => {
	const { said, announcer, counts } = make();
	counts.add("uploading", 1);
	counts.add("done", 1);
	announcer.progress(counts, 0.5);
	said();
	move(counts, "uploading", "paused");
	announcer.progress(counts, 0.5);
	expect(said()).toBe("");
});

it("tells one failure by name and many by number", () => {
	const { said, announcer } = make();
	const error = new UploadError("too_large", "Too large", "", { status: 413 });
	const view = new FakeUploader().put({ id: "a", name: "a.iso", phase: "failed", error });
	announcer.failed(view);
	expect(said()).toBe("a.iso failed. Too large");
	announcer.failed(view);
	announcer.failed(view);
	expect(said()).toBe("2 uploads failed");
});

it("tells what happens together in one sentence, and the network", () => {
	const { said, announcer } = make();
	announcer.network(true);
	announcer.conflict();
	announcer.conflict();
	expect(said()).toBe("You are online again. 2 files have names that are taken");
});

it("tells the same words twice as another text", () => {
	const { announcer } = make();
	announcer.say("Copied");
	announcer.say("Copied");
	expect(announcer.element.textContent).not.toBe("Copied");
	expect(announcer.element.textContent?.trim()).toBe("Copied");
});
