import { defineConfig } from "vitest/config";

export default defineConfig({
	test: {
		include: ["test/**/*.test.ts"],
		// The machine that runs this may have two cores and other work.
		maxWorkers: 1,
		testTimeout: 60_000,
	},
});
