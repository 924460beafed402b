import { useState, type ReactNode } from 'react';
import { csv, curl, type Question } from '../questions';

export interface PanelProps {
  title: string;
  /** Beside the title. */
  aside?: ReactNode;
  /** What its numbers answer, for CSV and curl. */
  question: Question;
  /** Nothing was answered yet. */
  isPending: boolean;
  /** The question cannot be answered. */
  isFailed: boolean;
  /** What is shown answers an earlier question. */
  isOld: boolean;
  /** There is nothing to show; why. */
  empty: string | null;
  size?: 'large' | 'chart' | 'list';
  children: ReactNode;
}

/** One box of the page, with its states. */
export function Panel({ title, aside, question, isPending, isFailed, isOld, empty, size = 'chart', children }: PanelProps) {
  const body = () => {
    if (isPending && isFailed) return <p className="empty">No numbers: see the message above.</p>;
    if (isPending) return <Skeleton />;
    if (empty) return <p className="empty">{empty}</p>;
    return children;
  };
  const name = title.toLowerCase().replace(/[^a-z]+/g, '-');
  return (
    <section className={`panel ${size}`} aria-labelledby={`${name}-title`} aria-busy={isPending && !isFailed} data-panel={name}>
      <header>
        <h2 id={`${name}-title`}>{title}</h2>
        {aside}
        <Take question={question} name={name} title={title} />
      </header>
      <div className="body" data-old={isOld || undefined}>
        {body()}
      </div>
    </section>
  );
}

const Skeleton = () => (
  <div className="skeleton" role="status" aria-label="Loading">
    {[72, 94, 61, 83, 49, 77].map((width) => (
      <span key={width} style={{ width: `${width}%` }} />
    ))}
  </div>
);

/** What is shown, to be taken elsewhere. */
function Take({ question, name, title }: { question: Question; name: string; title: string }) {
  const [said, setSaid] = useState('');
  const say = (text: string) => {
    setSaid(text);
    setTimeout(() => setSaid(''), 2000);
  };
  const download = async () => {
    try {
      const url = URL.createObjectURL(new Blob([await csv(question)], { type: 'text/csv' }));
      const link = Object.assign(document.createElement('a'), { href: url, download: `${name}.csv` });
      link.click();
      URL.revokeObjectURL(url);
    } catch (error) {
      say((error as Error).message);
    }
  };
  const copy = () =>
    navigator.clipboard.writeText(curl(question)).then(
      () => say('Copied'),
      () => say('The browser does not let this page copy'),
    );
  return (
    <span className="take">
      <span role="status">{said}</span>
      <button type="button" className="quiet" onClick={() => void download()} aria-label={`${title} as CSV`}>
        CSV
      </button>
      <button type="button" className="quiet" onClick={() => void copy()} aria-label={`${title} as curl`}>
        curl
      </button>
    </span>
  );
}
