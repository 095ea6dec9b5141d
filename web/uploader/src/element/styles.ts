// The look. Pages change it with the custom properties named --gantry-… and with ::part().

/** Colours in light and in dark. */
const palette: Readonly<Record<string, readonly [light: string, dark: string]>> = {
	ink: ["#1d2327", "#e6e9ea"],
	soft: ["#5b666e", "#9da8af"],
	line: ["#e4e6e1", "#2b3338"],
	edge: ["#c3c8c2", "#47525a"],
	card: ["#ffffff", "#1c2125"],
	tint: ["#f4f5f1", "#20262a"],
	accent: ["#0b5cad", "#7fb8f5"],
	"on-accent": ["#ffffff", "#10202f"],
	good: ["#1f6f43", "#7fcf9f"],
	warn: ["#8a5200", "#e5b567"],
	bad: ["#a3262a", "#f08a8d"],
};

const colours = (value: (light: string, dark: string) => string): string =>
	Object.entries(palette)
		.map(([name, [light, dark]]) => `--${name}:var(--gantry-${name},${value(light, dark)});`)
		.join("");

// The colours follow the page's color-scheme, or the attribute `theme`; in browsers from before light-dark() (2024) the
// system's.
export const css = `
:host{${colours((light) => light)}display:block;color:var(--ink);text-align:start}
@media (prefers-color-scheme:dark){:host(:not([theme=light])){${colours((_, dark) => dark)}}}
@supports (color:light-dark(red,red)){:host(:not([hidden])){
${colours((light, dark) => `light-dark(${light},${dark})`)}}}
:host([hidden]),[hidden]{display:none!important}
:host([theme=light]){color-scheme:light}
:host([theme=dark]){color-scheme:dark}
:host([theme=auto]){color-scheme:light dark}
*,::before,::after{box-sizing:border-box}
.frame{container-type:inline-size}
.frame,.cover{font:15px/1.45 var(--gantry-font,system-ui,sans-serif)}
p,ul{margin:0;padding:0;list-style:none}
svg{width:16px;height:16px;flex:none;fill:none;stroke:currentColor;stroke-width:1.6;stroke-linecap:round;
	stroke-linejoin:round}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.spoken{position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}

button{font:inherit;color:inherit;cursor:pointer;background:none;border:0;padding:0}
.choose,.small{display:inline-flex;align-items:center;min-height:36px;padding:0 .9rem;border:1px solid var(--line);
	border-radius:8px;background:var(--card);font-weight:550;white-space:nowrap}
.small{min-height:30px;padding:0 .7rem;font-size:.875em;border-radius:7px}
:is(.choose,.small):hover{border-color:var(--edge)}
.small.primary,.frame:not(.slim) .choose.primary{border-color:transparent;background:var(--accent);
	color:var(--on-accent)}
.primary:hover{filter:brightness(1.08)}
.icon{display:inline-grid;place-items:center;width:32px;height:32px;border-radius:8px;color:var(--soft);flex:none}
.icon:hover{background:var(--tint);color:var(--ink)}
.link{min-height:24px;padding:0 .1em;color:var(--accent);text-decoration:underline;text-decoration-thickness:1px;
	text-underline-offset:3px}
.choices{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center}

.zone{display:grid;justify-items:center;gap:.25rem;padding:3.25rem 1.5rem;border:1.5px dashed var(--edge);
	border-radius:14px;text-align:center}
.zone>svg{width:28px;height:28px;stroke-width:1.2;color:var(--accent);margin-bottom:.5rem}
.invitation{font-size:1.15em;font-weight:600;letter-spacing:-.005em}
.hint{color:var(--soft)}
.zone>.choices{justify-content:center;margin-top:1.1rem}
.zone.over{border-color:var(--accent);border-style:solid;background:color-mix(in srgb,var(--accent) 7%,transparent)}
.slim .zone{display:flex;flex-wrap:wrap;align-items:center;gap:.5rem .6rem;padding:.7rem .7rem .7rem 1rem;
	text-align:start}
.slim .zone>svg{width:18px;height:18px;stroke-width:1.5;margin:0}
.slim .invitation{font-size:1em;font-weight:550;flex:1 1 auto}
.slim .hint{display:none}
.slim .zone>.choices{margin:0}
.slim .choose{min-height:32px;padding:0 .75rem;font-size:.9em}
.cover{position:fixed;z-index:2147483647;inset:0;display:grid;place-items:center;padding:1rem;pointer-events:none;
	background:color-mix(in srgb,var(--card) 78%,transparent)}
.cover p{display:flex;align-items:center;gap:.6rem;padding:1rem 1.5rem;border-radius:14px;background:var(--accent);
	color:var(--on-accent);font-size:1.15em;font-weight:600}

.notice{display:flex;align-items:center;gap:.75rem;justify-content:space-between;margin-top:.75rem;
	padding:.6rem .6rem .6rem 1rem;border-radius:10px;background:var(--tint)}
.notice.warn{background:color-mix(in srgb,var(--warn) 12%,transparent)}
.card{flex-wrap:wrap;padding:.8rem .8rem .8rem 1rem}
.card .title{font-weight:550;flex-basis:100%}
.card ul{flex:1 1 14rem;min-width:0;font-size:.875em}
.card li{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.card li span{color:var(--soft)}

.header{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:.35rem 1rem;align-items:center;margin-top:1.5rem}
.summary{display:flex;flex-wrap:wrap;align-items:baseline;gap:0 .6rem}
.summary strong{font-weight:600}
.figures,.percent{color:var(--soft);font-variant-numeric:tabular-nums}
.figures{font-size:.9em}
.link.bad{color:var(--bad)}
.link.warn{color:var(--warn)}
.all{display:flex;gap:.5rem;flex-wrap:wrap;min-height:30px}
.total{grid-column:1/-1;display:flex;align-items:center;gap:.75rem}
.percent{min-width:3.2ch;text-align:end;font-size:.9em}
.total-bar{flex:1;height:6px;border-radius:3px}

[role=progressbar]{position:relative;overflow:hidden;background:var(--line)}
.bar{height:4px;border-radius:2px}
.hash-bar{height:2px;border-radius:1px;margin-top:2px;background:none}
.fill,.ahead{position:absolute;inset:0;background:var(--accent);transform:scaleX(0);transform-origin:0 50%;
	transition:transform .3s linear}
.ahead{opacity:.35}
.hash-bar .fill{background:var(--soft);opacity:.55}
[data-phase=paused] .fill,[data-phase=needs-file] .fill,[data-phase=elsewhere] .fill{background:var(--soft)}
[data-phase=waiting] .fill{background:var(--warn)}
[data-phase=finishing] .fill{animation:breathe 1.4s ease-in-out infinite alternate}
@keyframes breathe{to{opacity:.45}}

.list{margin-top:.6rem;max-height:var(--gantry-list-height,34rem);overflow-y:auto;border-block:1px solid var(--line);
	outline-offset:-2px}
.list .icon{outline-offset:-2px}
.row{display:grid;grid-template-columns:24px minmax(0,1fr) auto;gap:0 .75rem;align-items:start;align-content:center;
	min-height:4.25rem;padding:.5rem .25rem;outline-offset:-2px}
.row+.row{border-top:1px solid var(--line)}
.row:focus-visible{border-radius:8px}
.sign{display:grid;place-items:center;height:24px;color:var(--soft)}
[data-tone=busy] .sign{color:var(--accent)}
[data-tone=good] .sign{color:var(--good)}
[data-tone=warn] .sign{color:var(--warn)}
[data-tone=bad] .sign{color:var(--bad)}
.name{display:flex;min-width:0;white-space:pre;line-height:24px;font-weight:500}
.path{color:var(--soft);font-weight:400;overflow:hidden;text-overflow:ellipsis;flex:0 4 auto}
.head{overflow:hidden;text-overflow:ellipsis;flex:0 1 auto}
.tail{flex:none}
.state{color:var(--soft);font-size:.8667em;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.state>:empty{display:none}
.state>:not(:empty)~:not(:empty)::before{content:" · "}
[data-tone=bad] .phase,.reason{color:var(--bad)}
[data-tone=warn] .phase{color:var(--warn)}
[data-phase=cancelled] .name{color:var(--soft)}
.bars{margin-top:5px}
.bars:not(:has(>:not([hidden]))){display:none}
.more{font-size:.8667em;padding:.15rem 0 .3rem}
.more .choices{padding-top:.35rem}
.more label{display:inline-flex;align-items:center;gap:.4rem;min-height:24px;cursor:pointer}
.more input{width:16px;height:16px;margin:0;accent-color:var(--accent)}
.problem{display:flex;flex-wrap:wrap;align-items:baseline;gap:0 1rem;overflow-wrap:anywhere}
.detail{color:var(--soft)}
.actions{display:flex;justify-content:end;gap:2px;margin-top:4px;margin-inline-end:-2px}
:is([data-phase=finishing],[data-phase=elsewhere]) .actions{min-width:66px}

@container (max-width:34rem){
.zone{padding:2.25rem 1rem}
.header{grid-template-columns:minmax(0,1fr)}
.total{order:1}
.all{order:2;min-height:0}
.figures{flex-basis:100%}
.row{gap:0 .5rem;padding-inline:0}
[data-phase=uploading] :is(.speed,.phase){position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
[data-phase=uploading] .amount::before{content:none!important}
.actions{gap:0}
.card .choices{flex-basis:100%}
}
@media (hover:none){.hint,.invitation{display:none}}
@media (prefers-reduced-motion:reduce){*,::before,::after{transition:none!important;animation:none!important}}
@media (forced-colors:active){.fill{forced-color-adjust:none}[role=progressbar]{outline:1px solid}}
`;

let sheet: CSSStyleSheet | undefined;

/** Gives a shadow tree its style: by a sheet that all share, which a strict content security policy allows. */
export function adoptStyle(root: ShadowRoot): void {
	if ("adoptedStyleSheets" in root) {
		if (!sheet) {
			sheet = new CSSStyleSheet();
			sheet.replaceSync(css);
		}
		root.adoptedStyleSheets = [sheet];
	} else {
		// Safari before 16.4.
		const style = document.createElement("style");
		style.textContent = css;
		(root as ShadowRoot).append(style);
	}
}
