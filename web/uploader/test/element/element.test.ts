// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GantryUploader } from "../../src/element/index.js";
import { localError, UploadError } from "../../src/problem.js";
import type { ServerFile, UploadView } from "../../src/types.js";
import { FakeUploader } from "../fake-uploader.js";

let fake: FakeUploader;
let element: GantryUploader;

const shadow = (): ShadowRoot => element.shadowRoot as ShadowRoot;
/** One frame draws the element, the next one the list. */
const frame = (): void => void vi.advanceTimersToNextFrame().advanceTimersToNextFrame();
const row = (id: string): HTMLElement => shadow().querySelector(`[data-id="${id}"]`) as HTMLElement;
const textOf = (selector: string, within: ParentNode = shadow()): string =>
	within.querySelector(selector)?.textContent ?? "";
const shown = (selector: string, within: ParentNode = shadow()): boolean => {
	let at: Element | null = within.querySelector(selector);
	for (; at; at = at.parentElement) {
		if (at.hasAttribute("hidden")) {
			return false;
		}
	}
	return within.querySelector(selector) !== null;
};
const buttons = (within: ParentNode = shadow()): HTMLButtonElement[] =>
	[...within.querySelectorAll("button")].filter((b) => !b.hidden && !b.closest("[hidden]"));
const named = (name: string, within: ParentNode = shadow()): HTMLButtonElement => {
	const found = buttons(within).find((b) => (b.getAttribute("aria-label") ?? b.textContent) === name);
	if (!found) {
		throw new Error(
			`no button "${name}", only ${buttons(within)
				.map((b) => b.getAttribute("aria-label") ?? b.textContent)
				.join(", ")}`,
		);
	}
	return found;
};
/** The state of a row in words, without what is hidden. */
const state = (id: string): string =>
	[...row(id).querySelectorAll(".state > *")]
		.map((part) => part.textContent)
		.filter(Boolean)
		.join(" · ");
const put = (view: Partial<UploadView> & { id: string }): void => {
	fake.put(view);
	frame();
};
const there = { id: "f", name: "a", path: "", size: 3_200_000, updated_at: "2026-10-01T12:00:00Z" } as ServerFile;
const noRoom = new UploadError("insufficient_storage", "No room", "1.2 GB are left.", {
	status: 507,
	requestId: "q7m2",
});

beforeEach(() => {
	vi.useFakeTimers({ now: new Date(2026, 10, 25, 14, 2) });
	fake = new FakeUploader();
	element = document.createElement("gantry-uploader");
	element.lang = "en";
	element.uploader = fake;
	vi.spyOn(HTMLElement.prototype, "clientHeight", "get").mockReturnValue(600);
	document.body.replaceChildren(element);
});

afterEach(() => {
	element.remove();
	vi.restoreAllMocks();
	vi.useRealTimers();
});

describe("the element", () => {
	it("is empty at first, and invites", () => {
		frame();
		expect(textOf(".invitation")).toBe("Drop files or folders here");
		expect(shown(".header")).toBe(false);
		expect(shown(".list")).toBe(false);
	});

	it("shows each phase in words", () => {
		const now = Date.now();
		const G = 1e9;
		const network = localError("network");
		const cases: [Partial<UploadView>, string][] = [
			[{ phase: "queued", size: 9 * G }, "Queued · 9.0 GB"],
			[{ phase: "checking", size: 9 * G, hashed: 3 * G }, "Checking whether the server has it · 33%"],
			[
				{ phase: "uploading", size: 9 * G, sent: 4 * G, sending: 4.2 * G, speed: 32e6, timeLeft: 100 },
				"Uploading · 4.2 GB of 9.0 GB · 32 MB/s · about 2 min left",
			],
			[{ phase: "finishing", size: 9 * G, sent: 9 * G }, "Finishing · 9.0 GB"],
			[{ phase: "done", size: 9 * G, sent: 9 * G }, "Done · 9.0 GB"],
			[
				{ phase: "instant", size: 9 * G, saved: 9 * G },
				"Instant · The server already has this exact content, verified; 9.0 GB not sent",
			],
			[
				{ phase: "instant", size: 9 * G, saved: 4 * G },
				"Instant · The server already has this exact content, verified; 4.0 GB of 9.0 GB not sent",
			],
			[{ phase: "paused", size: 9 * G, sent: 4 * G }, "Paused · 4.0 GB of 9.0 GB"],
			[
				{ phase: "waiting", size: 9 * G, retryAt: now + 12_000, error: network },
				"Trying again in 12 s · 9.0 GB · The server cannot be reached",
			],
			[{ phase: "waiting", size: 9 * G, retryAt: null }, "Waiting for the network · 9.0 GB"],
			[{ phase: "conflict", size: 9 * G, conflictWith: there }, "A file of this name is there · 3.2 MB, Oct 1, 2026"],
			[{ phase: "needs-file", size: 9 * G, sent: 4 * G }, "Needs its file again · 4.0 GB of 9.0 GB"],
			[{ phase: "elsewhere", size: 9 * G, sent: 4 * G }, "Another tab is sending it · 4.0 GB of 9.0 GB"],
			[{ phase: "failed", size: 9 * G, error: noRoom }, "Failed · 9.0 GB"],
			[{ phase: "cancelled", size: 9 * G }, "Cancelled · 9.0 GB"],
			[{ phase: "cancelled", size: 9 * G, conflictWith: there }, "Skipped, a file of this name is there · 9.0 GB"],
		];
		for (const [i, [view]] of cases.entries()) {
			fake.put({ id: `p${i}`, ...view });
		}
		frame();
		// So many rows are not all in sight.
		expect(cases.map((_, i) => state(`p${i}`))).toEqual(cases.map(([, words]) => words));
	});

	it("has buttons that are named after the file", () => {
		put({ id: "a", name: "report.pdf", phase: "uploading" });
		named("Pause report.pdf").click();
		frame();
		named("Resume report.pdf").click();
		frame();
		named("Cancel report.pdf").click();
		frame();
		named("Remove report.pdf from the list").click();
		frame();
		expect(fake.calls).toEqual(["pause a", "resume a", "cancel a", "remove a"]);
		expect(row("a")).toBeNull();
	});

	it("shows the name that an upload is given to keep both files", () => {
		put({ id: "a", name: "report.pdf", path: "docs", phase: "queued" });
		expect(textOf(".name", row("a"))).toBe("docs/report.pdf");
		fake.set("a", { name: "report (2).pdf" });
		frame();
		expect(textOf(".name", row("a"))).toBe("docs/report (2).pdf");
		expect(named("Pause report (2).pdf")).toBeTruthy();
	});

	it("keeps the focus on a button whose meaning changes", () => {
		put({ id: "a", name: "report.pdf", phase: "uploading" });
		const pause = named("Pause report.pdf");
		pause.focus();
		pause.click();
		frame();
		expect(shadow().activeElement).toBe(named("Resume report.pdf"));
		fake.set("a", { phase: "done" });
		frame();
		expect(shadow().activeElement).toBe(row("a"));
	});

	it("has a thin second bar while it hashes, and one that tells figures to a screen reader", () => {
		put({ id: "a", name: "a.iso", phase: "uploading", size: 1000, sent: 420, sending: 500, hashed: 700 });
		const bars = [...row("a").querySelectorAll("[role=progressbar]")];
		expect(bars.map((bar) => [bar.getAttribute("aria-label"), bar.getAttribute("aria-valuenow")])).toEqual([
			["Progress of a.iso", "42"],
			["Checking a.iso", "70"],
		]);
		expect((bars[0]?.querySelector(".fill") as HTMLElement).style.transform).toBe("scaleX(0.4200)");
		fake.set("a", { hashed: 1000 });
		frame();
		expect(shown(".hash-bar", row("a"))).toBe(false);
	});

	it("takes keys on a row: the space bar pauses, Delete cancels", () => {
		put({ id: "a", phase: "uploading" });
		row("a").dispatchEvent(new KeyboardEvent("keydown", { key: " ", bubbles: true }));
		row("a").dispatchEvent(new KeyboardEvent("keydown", { key: "Delete", bubbles: true }));
		expect(fake.calls).toEqual(["pause a", "cancel a"]);
	});

	it("shows what an error means, what the server said, and the request id to copy", async () => {
		const writeText = vi.spyOn(navigator.clipboard, "writeText").mockResolvedValue();
		put({ id: "a", name: "a.iso", phase: "failed", error: noRoom });
		expect(textOf(".reason", row("a"))).toBe("No room");
		expect(textOf(".detail", row("a"))).toBe("1.2 GB are left.");
		const copy = named("Copy request id q7m2");
		copy.click();
		await vi.waitFor(() => expect(copy.textContent).toBe("Copied"));
		expect(writeText).toHaveBeenCalledWith("q7m2");
		named("Retry a.iso").click();
		frame();
		expect(fake.calls).toEqual(["retry a"]);
		expect(shown(".more", row("a"))).toBe(false);
	});

	it("shows errors in Chinese, with what the server said, and those that it does not know in the server's words", () => {
		element.lang = "zh";
		put({ id: "a", phase: "failed", error: noRoom });
		expect([textOf(".reason", row("a")), textOf(".problem", row("a"))]).toEqual([
			"服务器空间不足。请稍后重试，或联系管理员。",
			"服务器空间不足。请稍后重试，或联系管理员。1.2 GB are left.请求编号 q7m2 复制",
		]);
		put({
			id: "b",
			phase: "failed",
			error: new UploadError("teapot", "Teapot", "No PDF on Wednesdays.", { status: 418 }),
		});
		expect([textOf(".reason", row("b")), textOf(".detail", row("b"))]).toEqual(["Teapot", "No PDF on Wednesdays."]);
		put({ id: "c", phase: "failed", error: localError("file_changed") });
		expect([textOf(".reason", row("c")), textOf(".detail", row("c"))]).toEqual([
			"文件添加后在磁盘上被修改。请重新添加。",
			"",
		]);
		put({ id: "d", phase: "waiting", retryAt: null, error: localError("network") });
		expect(state("d")).toBe("等待网络恢复 · 1.0 kB · 服务器没有响应");
	});

	it("tells at length what keeps it waiting for longer", () => {
		const busy = new UploadError("unavailable", "Busy", "Try again later.", { retryable: true });
		put({ id: "a", phase: "waiting", attempt: 1, retryAt: Date.now() + 1000, error: busy });
		expect(shown(".more", row("a"))).toBe(false);
		fake.set("a", { attempt: 3 });
		frame();
		expect(textOf(".reason", row("a"))).toBe("Busy");
		fake.set("a", { attempt: 1, error: noRoom }); // which does not pass in a moment
		frame();
		expect(textOf(".reason", row("a"))).toBe("No room");
		fake.set("a", { phase: "uploading", attempt: 0, error: null });
		frame();
		expect(shown(".more", row("a"))).toBe(false);
	});

	it("counts down to the next try", () => {
		put({ id: "a", phase: "waiting", retryAt: Date.now() + 12_000 });
		expect(state("a")).toContain("in 12 s");
		vi.advanceTimersByTime(3100);
		expect(state("a")).toMatch(/in 9 s/);
		fake.set("a", { phase: "uploading" });
		frame();
		expect(vi.getTimerCount()).toBeLessThanOrEqual(1); // what is said of it
	});

	it("asks about a name that is taken, for one and for all", () => {
		put({ id: "a", phase: "conflict", conflictWith: there });
		expect(shown("label", row("a"))).toBe(false);
		put({ id: "b", phase: "conflict", conflictWith: there });
		expect(textOf("label", row("a"))).toBe("also for 1 more");
		expect(shown("label", row("a"))).toBe(true);
		named("Replace", row("a")).click();
		frame();
		expect(shown("label", row("b"))).toBe(false);
		put({ id: "c", phase: "conflict", conflictWith: there });
		row("b").querySelector("input")?.click();
		named("Keep both", row("b")).click();
		expect(fake.calls).toEqual(["resolve a replace false", "resolve b keep-both true"]);
		frame();
		expect(row("c").dataset.phase).toBe("queued");
	});

	it("tells the server to forget a failed upload that is taken off the list", () => {
		put({ id: "a", name: "a.iso", phase: "failed", error: noRoom });
		named("Remove a.iso from the list").click();
		expect(fake.calls).toEqual(["cancel a", "remove a"]);
	});
});

describe("the header", () => {
	it("tells of all uploads, and does things to all", () => {
		fake.put({ id: "a", phase: "uploading", size: 8e9, sent: 2e9, speed: 50e6 });
		fake.put({ id: "b", phase: "failed", size: 1e9, error: noRoom });
		fake.put({ id: "c", phase: "conflict", size: 1e9, conflictWith: there });
		put({ id: "d", phase: "done", size: 1e9, sent: 1e9 });
		expect(textOf(".summary strong")).toBe("Uploading 1 file");
		expect(buttons().map((b) => b.textContent)).toEqual(
			expect.arrayContaining(["1 failed", "1 file waits for you", "Pause all", "Retry failed", "Clear finished"]),
		);
		expect(textOf(".figures")).toBe("3.0 GB of 11.0 GB · 50 MB/s · about 3 min left");
		expect(textOf(".percent")).toBe("27%");
		named("Clear finished").click();
		named("Pause all").focus();
		named("Pause all").click();
		frame();
		expect(shadow().activeElement).toBe(named("Resume all"));
		expect(textOf(".summary strong")).toBe("2 files paused");
		named("Resume all").click();
		frame();
		named("Retry failed").click();
		expect(fake.calls).toEqual(["remove d", "pause", "resume", "retry"]);
	});

	it("shows what failed, one after the other", () => {
		for (let i = 0; i < 9; i++) {
			fake.put({ id: `r${i}`, phase: i % 4 === 2 ? "failed" : "done", error: noRoom });
		}
		frame();
		const failed = named("2 failed");
		failed.click();
		expect(shadow().activeElement).toBe(row("r2"));
		failed.click();
		expect(shadow().activeElement).toBe(row("r6"));
		failed.click();
		expect(shadow().activeElement).toBe(row("r2"));
	});

	it("tells at the end what was saved", () => {
		fake.put({ id: "a", phase: "instant", size: 9e9, saved: 9e9 });
		put({ id: "b", phase: "done", size: 1e9, sent: 1e9 });
		expect(textOf(".summary strong")).toBe("2 files uploaded");
		expect(textOf(".figures")).toBe("10.0 GB · 9.0 GB not sent, the server had it");
		expect(shown(".total-bar")).toBe(false);
	});
});

describe("around the list", () => {
	it("tells that the network is away", () => {
		frame();
		expect(shown("[part=offline]")).toBe(false);
		fake.setOnline(false);
		frame();
		expect(shown("[part=offline]")).toBe(true);
	});

	it("asks for the files of interrupted uploads, and gives them what is chosen", async () => {
		for (let i = 0; i < 5; i++) {
			fake.put({ id: `n${i}`, name: `clip ${i}.mov`, size: 4.2e9, phase: "needs-file" });
		}
		frame();
		expect(textOf(".card .title")).toBe("5 uploads were interrupted. Choose their files again to go on.");
		expect([...shadow().querySelectorAll(".card li")].map((li) => li.textContent)).toEqual([
			"clip 0.mov 4.2 GB",
			"clip 1.mov 4.2 GB",
			"clip 2.mov 4.2 GB",
			"and 2 more",
		]);
		const other = new File(["x"], "other.txt");
		fake.strangers = [other];
		choose([new File(["1"], "clip 1.mov"), other]);
		await vi.waitFor(() => expect(fake.given).toEqual([other]));
		expect(fake.calls).toEqual(["rejoin clip 1.mov other.txt"]);
		expect(textOf("[part=notice] p")).toBe("1 other file was chosen too. It is uploaded as new.");
	});

	it("goes on with the files that can be read after a click, and asks for the others", () => {
		for (const id of ["a", "b"]) {
			fake.put({ id, phase: "needs-file" });
		}
		frame();
		const asked = vi.spyOn(HTMLInputElement.prototype, "click").mockReturnValue();
		named("Go on").click();
		expect([asked.mock.calls.length, fake.calls]).toEqual([1, []]);
		const picker = vi.fn(async () => []);
		Object.defineProperty(window, "showOpenFilePicker", { value: picker, configurable: true });
		try {
			named("Go on").click();
			expect(fake.calls).toEqual(["resume a", "resume b"]);
			fake.set("b", { phase: "needs-file" });
			expect(picker).not.toHaveBeenCalled();
			fake.set("a", { phase: "queued" });
			expect(picker).toHaveBeenCalledOnce();
			frame();
			named("Go on").click();
			fake.set("b", { phase: "queued" });
			expect(picker).toHaveBeenCalledOnce();
		} finally {
			Reflect.deleteProperty(window, "showOpenFilePicker");
		}
	});

	it("forgets them all", () => {
		put({ id: "n", phase: "needs-file" });
		named("Forget").click();
		expect(fake.calls).toEqual(["cancel n"]);
	});

	it("asks before the page is left only while something moves", () => {
		const leave = (): boolean => {
			const event = new Event("beforeunload", { cancelable: true });
			window.dispatchEvent(event);
			return event.defaultPrevented;
		};
		put({ id: "a", phase: "uploading" });
		expect(leave()).toBe(true);
		fake.set("a", { phase: "paused" });
		frame();
		expect(leave()).toBe(false);
		fake.set("a", { phase: "waiting" });
		frame();
		expect(leave()).toBe(true);
		element.remove();
		expect(leave()).toBe(false);
	});

	it("keeps the device awake while something moves, where that exists", async () => {
		const release = vi.fn();
		const request = vi.fn(async () => ({ release }));
		Object.defineProperty(navigator, "wakeLock", { value: { request }, configurable: true });
		try {
			put({ id: "a", phase: "uploading" });
			expect(request).toHaveBeenCalledWith("screen");
			fake.set("a", { phase: "done" });
			frame();
			await vi.waitFor(() => expect(release).toHaveBeenCalledOnce());
		} finally {
			Reflect.deleteProperty(navigator, "wakeLock");
		}
	});

	it("tells in the title how far it is, if it is told to", () => {
		document.title = "Files";
		element.setAttribute("title-progress", "");
		put({ id: "a", phase: "uploading", size: 100, sent: 42 });
		expect(document.title).toBe("42% – Files");
		fake.set("a", { sent: 50 });
		frame();
		expect(document.title).toBe("50% – Files");
		fake.set("a", { phase: "done", sent: 100 });
		frame();
		expect(document.title).toBe("Files");
	});
});

describe("what comes in", () => {
	it("covers the page while something is dragged over it, if it takes drops anywhere", () => {
		const drag = (type: string, types: string[]): boolean => {
			const event = new DragEvent(type, { bubbles: true, cancelable: true });
			Object.defineProperty(event, "dataTransfer", { value: { types, items: [], dropEffect: "none" } });
			document.body.dispatchEvent(event);
			return event.defaultPrevented;
		};
		drag("dragenter", ["Files"]);
		expect(shown(".cover")).toBe(false);
		element.setAttribute("anywhere", "");
		expect(shadow().querySelectorAll(".cover")).toHaveLength(1);
		drag("dragenter", ["text/plain"]);
		expect(shown(".cover")).toBe(false);
		drag("dragenter", ["Files"]);
		drag("dragenter", ["Files"]);
		drag("dragleave", ["Files"]);
		expect(shown(".cover")).toBe(true);
		drag("dragleave", ["Files"]);
		expect(shown(".cover")).toBe(false);
		drag("dragenter", ["Files"]);
		expect([drag("dragover", ["Files"]), drag("dragover", ["text/plain"]), drag("drop", ["Files"])]).toEqual([
			true,
			false,
			true,
		]);
		expect(shown(".cover")).toBe(false);
		expect(fake.given).toHaveLength(1);
	});

	it("adds what is chosen", async () => {
		const files = [new File(["a"], "a.txt"), new File(["b"], "b.txt")];
		choose(files);
		await vi.waitFor(() => expect(fake.given).toEqual([files]));
	});

	it("leaves out what is not accepted, and says so", async () => {
		element.setAttribute("accept", ".jpg, video/*");
		const [jpg, mov, txt] = [
			new File(["a"], "A.JPG"),
			new File(["b"], "b", { type: "video/quicktime" }),
			new File(["c"], "c.txt", { type: "text/plain" }),
		];
		choose([jpg, mov, txt]);
		await vi.waitFor(() => expect(fake.given).toEqual([jpg, mov]));
		expect(textOf("[part=notice] p")).toBe("1 file was left out: only .jpg, video/* can be uploaded here.");
		named("Dismiss").click();
		expect(shown("[part=notice]")).toBe(false);
	});

	it("takes one file only, if it is told to", async () => {
		element.setAttribute("multiple", "false");
		expect(textOf(".invitation")).toBe("Drop a file here");
		choose([new File(["a"], "a"), new File(["b"], "b")]);
		await vi.waitFor(() => expect(textOf("[part=notice] p")).toBe("Only one file at a time can be uploaded here."));
		expect(fake.given).toEqual([]);
	});

	it("takes what is pasted, and gives pictures a name", async () => {
		const transfer = new DataTransfer();
		transfer.items.add(new File(["x"], "image.png", { type: "image/png" }));
		const event = new ClipboardEvent("paste", { bubbles: true, cancelable: true });
		Object.defineProperty(event, "clipboardData", { value: { files: [...transfer.files] } });
		document.body.dispatchEvent(event);
		await vi.waitFor(() => expect(fake.given).toHaveLength(1));
		expect((fake.given[0] as File[])[0]?.name).toBe("Pasted 2026-11-25 14.02.00.png");
		expect(event.defaultPrevented).toBe(true);
	});

	it("leaves pasting into a field to the field", () => {
		const field = document.body.appendChild(document.createElement("textarea"));
		const event = new ClipboardEvent("paste", { bubbles: true, cancelable: true });
		Object.defineProperty(event, "clipboardData", { value: { files: [new File(["x"], "a")] } });
		field.dispatchEvent(event);
		expect(event.defaultPrevented).toBe(false);
		expect(fake.given).toEqual([]);
	});

	it("tells what it could not read", async () => {
		vi.spyOn(fake, "add").mockRejectedValue(new AggregateError([]));
		choose([new File(["a"], "a")]);
		await vi.waitFor(() => expect(textOf("[part=notice] p")).toContain("could not be read"));
	});
});

describe("its life", () => {
	it("speaks the language of the page, and follows it", async () => {
		element.removeAttribute("lang");
		document.documentElement.lang = "zh-CN";
		put({ id: "a", name: "报告.pdf", phase: "uploading" });
		await vi.waitFor(() => {
			frame();
			expect(textOf(".summary strong")).toBe("正在上传 1 个文件");
		});
		expect(named("暂停 报告.pdf")).toBeTruthy();
		expect(shadow().querySelector(".frame")?.getAttribute("lang")).toBe("zh-CN");
		document.documentElement.removeAttribute("lang");
	});

	it("tells its page what happens", () => {
		const told: string[] = [];
		for (const type of ["added", "complete", "error"]) {
			element.addEventListener(type, (event) => told.push(`${type} ${(event as CustomEvent<UploadView>).detail.id}`));
		}
		fake.put({ id: "a" });
		fake.set("a", { phase: "done" });
		fake.put({ id: "b" });
		fake.set("b", { phase: "failed", error: noRoom });
		expect(told).toEqual(["added a", "complete a", "added b", "error b"]);
	});

	it("stops listening when it is taken out, goes on when it comes back, and keeps the Uploader it was given", async () => {
		put({ id: "a", name: "a.iso" });
		element.remove();
		expect(fake.listeners).toBe(0);
		fake.put({ id: "b", name: "b.iso" });
		document.body.append(element);
		frame();
		expect([row("a") !== null, row("b") !== null]).toEqual([true, true]);
		element.remove();
		await Promise.resolve();
		document.body.append(element);
		frame();
		expect(row("a")).not.toBeNull();
		expect(fake.closed).toBe(false);
	});

	it("shows the uploads of another Uploader that it is given", () => {
		put({ id: "a" });
		const other = new FakeUploader();
		other.put({ id: "z", phase: "done" });
		element.uploader = other;
		frame();
		expect([row("a"), row("z") !== null]).toEqual([null, true]);
		expect(fake.listeners).toBe(0);
		expect(textOf(".summary strong")).toBe("1 file uploaded");
	});

	it("takes over an Uploader that was given before the element was defined", () => {
		const early = document.createElement("gantry-uploader");
		const other = new FakeUploader();
		other.put({ id: "z" });
		Object.defineProperty(early, "uploader", { value: other, writable: true, configurable: true, enumerable: true });
		document.body.append(early);
		expect(early.uploader).toBe(other);
		expect(Object.hasOwn(early, "uploader")).toBe(false);
		early.remove();
	});
});

/** As if the user had chosen these in the picker. */
function choose(files: File[]): void {
	const input = shadow().querySelector<HTMLInputElement>("input[data-choose=files]");
	if (input) {
		Object.defineProperty(input, "files", { value: files, configurable: true });
		input.dispatchEvent(new Event("change"));
	}
}
