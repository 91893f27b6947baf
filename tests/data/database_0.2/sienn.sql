BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE datasets (
	seq INTEGER NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	filename TEXT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	format VARCHAR(64) NOT NULL, 
	num_rows BIGINT NOT NULL, 
	columns JSON NOT NULL, 
	preview JSON NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	created_at DATETIME NOT NULL, duplicate_of VARCHAR(64), 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "datasets" VALUES(1,'dataset-1','dataset-1.csv',1024,'1111111111111111111111111111111111111111111111111111111111111111','instruction-response',2,'["instruction", "response"]','[{"instruction": "Wie hei\u00dft die F\u00e4hre?", "response": "Kestrel \u26f4"}]','uploaded','2026-03-04 05:06:08.890123',NULL);
INSERT INTO "datasets" VALUES(2,'dataset-2','dataset-2.csv',1024,'2222222222222222222222222222222222222222222222222222222222222222','text',2,'["text"]','[{"text": "a"}]','uploaded','2026-03-04 05:06:09.890123',NULL);
INSERT INTO "datasets" VALUES(3,'dataset-3','dataset-3.csv',1024,'3333333333333333333333333333333333333333333333333333333333333333','preference',2,'["prompt", "chosen", "rejected"]','[]','uploaded','2026-03-04 05:06:10.890123',NULL);
INSERT INTO "datasets" VALUES(4,'dataset-4','dataset-4.csv',1024,'1111111111111111111111111111111111111111111111111111111111111111','instruction-response',2,'["instruction", "response"]','[{"instruction": "Wie hei\u00dft die F\u00e4hre?", "response": "Kestrel \u26f4"}]','uploaded','2026-03-04 05:06:11.890123','dataset-1');
CREATE TABLE exports (
	seq INTEGER NOT NULL, 
	id VARCHAR(32) NOT NULL, 
	job_id VARCHAR(36) NOT NULL, 
	base_model TEXT NOT NULL, 
	job_name TEXT, 
	options JSON NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	progress INTEGER NOT NULL, 
	message TEXT NOT NULL, 
	failure_reason VARCHAR(32), 
	attempt INTEGER NOT NULL, 
	file_name TEXT, 
	size_bytes BIGINT, 
	sha256 VARCHAR(64), 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	expires_at DATETIME, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "exports" VALUES(1,'0b1b956d644d3f106fa880b5474b7065','completed-sft','owner/model',NULL,'{"format": "gguf", "quantization": "Q8_0", "merged": false, "adapter_only": false, "model_name": null, "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40}, "system": null}','completed',100,'The export is complete',NULL,1,'model-Q8_0.gguf',4242,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','2026-03-04 05:09:06.890123','2026-03-04 05:09:09.890123','2026-03-04 05:09:10.890123','2999-03-01 05:09:08.890123');
INSERT INTO "exports" VALUES(2,'62636e142070e6f123987334f1730d40','completed-sft','owner/model',NULL,'{"format": "gguf", "quantization": "Q6_K", "merged": false, "adapter_only": false, "model_name": null, "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40}, "system": null}','failed',0,'the disk is full','storage_full',1,NULL,NULL,NULL,'2026-03-04 05:09:11.890123','2026-03-04 05:09:13.890123','2026-03-04 05:09:14.890123',NULL);
INSERT INTO "exports" VALUES(3,'eeea84af6d5bf7f938b866fc91e9121a','completed-sft','owner/model',NULL,'{"format": "gguf", "quantization": "Q5_K_M", "merged": false, "adapter_only": false, "model_name": null, "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40}, "system": null}','cancelled',0,'The export was cancelled',NULL,0,NULL,NULL,NULL,'2026-03-04 05:09:15.890123','2026-03-04 05:09:16.890123','2026-03-04 05:09:16.890123',NULL);
INSERT INTO "exports" VALUES(4,'9a45b38a6d8ec3f645ee59b228142ac0','completed-sft','owner/model',NULL,'{"format": "gguf", "quantization": "F16", "merged": false, "adapter_only": false, "model_name": null, "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40}, "system": null}','running',40,'Writing weights',NULL,1,NULL,NULL,NULL,'2026-03-04 05:09:17.890123','2026-03-04 05:09:19.890123',NULL,NULL);
INSERT INTO "exports" VALUES(5,'d038fb583edc1e650b7db86840b3ce52','completed-sft','owner/model',NULL,'{"format": "ollama", "quantization": "Q4_K_M", "merged": false, "adapter_only": false, "model_name": "ferry", "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40}, "system": "Be brief."}','pending',0,'The export waits for its turn',NULL,0,NULL,NULL,NULL,'2026-03-04 05:09:20.890123','2026-03-04 05:09:20.890123',NULL,NULL);
INSERT INTO "exports" VALUES(6,'ca78071911feb406c88a3eb3504a521c','completed-dpo','owner/model',NULL,'{"format": "huggingface", "quantization": null, "merged": false, "adapter_only": false, "model_name": null, "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40}, "system": null}','pending',0,'The export was interrupted',NULL,1,NULL,NULL,NULL,'2026-03-04 05:09:21.890123','2026-03-04 05:09:23.890123',NULL,NULL);
CREATE TABLE job_events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR(36) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	message TEXT NOT NULL, 
	data JSON NOT NULL, 
	created_at DATETIME NOT NULL
);
INSERT INTO "job_events" VALUES(1,'running-new','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:06:13.890123');
INSERT INTO "job_events" VALUES(2,'running-new','started','Attempt 1 started as Ray job sienn-running-new-1','{"attempt": 1, "ray_submission_id": "sienn-running-new-1"}','2026-03-04 05:06:15.890123');
INSERT INTO "job_events" VALUES(3,'running-training','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:06:17.890123');
INSERT INTO "job_events" VALUES(4,'running-training','started','Attempt 1 started as Ray job sienn-running-training-1','{"attempt": 1, "ray_submission_id": "sienn-running-training-1"}','2026-03-04 05:06:19.890123');
INSERT INTO "job_events" VALUES(5,'running-training','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:06:20.890123');
INSERT INTO "job_events" VALUES(6,'running-training','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:06:21.890123');
INSERT INTO "job_events" VALUES(7,'running-training','evaluated','Evaluated after epoch 2/3','{"eval_loss": 0.7, "epoch": 2, "step": 6}','2026-03-04 05:06:23.890123');
INSERT INTO "job_events" VALUES(8,'running-training','phase','Evaluated after epoch 2/3','{"phase": "evaluating", "attempt": 1}','2026-03-04 05:06:23.890123');
INSERT INTO "job_events" VALUES(9,'running-training','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:06:24.890123');
INSERT INTO "job_events" VALUES(10,'running-training','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:06:25.890123');
INSERT INTO "job_events" VALUES(11,'running-nan','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:06:28.890123');
INSERT INTO "job_events" VALUES(12,'running-nan','started','Attempt 1 started as Ray job sienn-running-nan-1','{"attempt": 1, "ray_submission_id": "sienn-running-nan-1"}','2026-03-04 05:06:30.890123');
INSERT INTO "job_events" VALUES(13,'running-nan','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:06:31.890123');
INSERT INTO "job_events" VALUES(14,'running-nan','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:06:32.890123');
INSERT INTO "job_events" VALUES(15,'running-pausing','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:06:35.890123');
INSERT INTO "job_events" VALUES(16,'running-pausing','started','Attempt 1 started as Ray job sienn-running-pausing-1','{"attempt": 1, "ray_submission_id": "sienn-running-pausing-1"}','2026-03-04 05:06:37.890123');
INSERT INTO "job_events" VALUES(17,'running-pausing','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:06:38.890123');
INSERT INTO "job_events" VALUES(18,'running-pausing','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:06:39.890123');
INSERT INTO "job_events" VALUES(19,'running-pausing','phase','Pausing; its run writes a checkpoint and ends','{"phase": "pausing", "attempt": 1}','2026-03-04 05:06:41.890123');
INSERT INTO "job_events" VALUES(20,'running-overdue','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:06:43.890123');
INSERT INTO "job_events" VALUES(21,'running-overdue','started','Attempt 1 started as Ray job sienn-running-overdue-1','{"attempt": 1, "ray_submission_id": "sienn-running-overdue-1"}','2026-03-04 05:06:45.890123');
INSERT INTO "job_events" VALUES(22,'running-overdue','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:06:46.890123');
INSERT INTO "job_events" VALUES(23,'running-overdue','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:06:47.890123');
INSERT INTO "job_events" VALUES(24,'running-overdue','phase','Pausing; its run writes a checkpoint and ends','{"phase": "pausing", "attempt": 1}','2026-03-04 05:06:49.890123');
INSERT INTO "job_events" VALUES(25,'running-resuming','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:06:52.890123');
INSERT INTO "job_events" VALUES(26,'running-resuming','started','Attempt 1 started as Ray job sienn-running-resuming-1','{"attempt": 1, "ray_submission_id": "sienn-running-resuming-1"}','2026-03-04 05:06:54.890123');
INSERT INTO "job_events" VALUES(27,'running-resuming','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:06:55.890123');
INSERT INTO "job_events" VALUES(28,'running-resuming','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:06:56.890123');
INSERT INTO "job_events" VALUES(29,'running-resuming','phase','Pausing; its run writes a checkpoint and ends','{"phase": "pausing", "attempt": 1}','2026-03-04 05:06:58.890123');
INSERT INTO "job_events" VALUES(30,'running-resuming','resumed','Resumed before its run had paused','{}','2026-03-04 05:06:59.890123');
INSERT INTO "job_events" VALUES(31,'running-earlier','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:01.890123');
INSERT INTO "job_events" VALUES(32,'running-earlier','started','Attempt 1 started as Ray job sienn-running-earlier-1','{"attempt": 1, "ray_submission_id": "sienn-running-earlier-1"}','2026-03-04 05:07:03.890123');
INSERT INTO "job_events" VALUES(33,'paused-trained','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:06.890123');
INSERT INTO "job_events" VALUES(34,'paused-trained','started','Attempt 1 started as Ray job sienn-paused-trained-1','{"attempt": 1, "ray_submission_id": "sienn-paused-trained-1"}','2026-03-04 05:07:08.890123');
INSERT INTO "job_events" VALUES(35,'paused-trained','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:07:09.890123');
INSERT INTO "job_events" VALUES(36,'paused-trained','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:07:10.890123');
INSERT INTO "job_events" VALUES(37,'paused-trained','phase','Pausing; its run writes a checkpoint and ends','{"phase": "pausing", "attempt": 1}','2026-03-04 05:07:12.890123');
INSERT INTO "job_events" VALUES(38,'paused-trained','paused','Paused; it goes on from its last checkpoint once it is resumed','{}','2026-03-04 05:07:13.890123');
INSERT INTO "job_events" VALUES(39,'paused-waiting','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:15.890123');
INSERT INTO "job_events" VALUES(40,'paused-waiting','paused','Paused while it waited','{}','2026-03-04 05:07:16.890123');
INSERT INTO "job_events" VALUES(41,'completed-sft','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:18.890123');
INSERT INTO "job_events" VALUES(42,'completed-sft','started','Attempt 1 started as Ray job sienn-completed-sft-1','{"attempt": 1, "ray_submission_id": "sienn-completed-sft-1"}','2026-03-04 05:07:20.890123');
INSERT INTO "job_events" VALUES(43,'completed-sft','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:07:21.890123');
INSERT INTO "job_events" VALUES(44,'completed-sft','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:07:22.890123');
INSERT INTO "job_events" VALUES(45,'completed-sft','evaluated','Evaluated after epoch 2/3','{"eval_loss": 0.7, "epoch": 2, "step": 6}','2026-03-04 05:07:24.890123');
INSERT INTO "job_events" VALUES(46,'completed-sft','phase','Evaluated after epoch 2/3','{"phase": "evaluating", "attempt": 1}','2026-03-04 05:07:24.890123');
INSERT INTO "job_events" VALUES(47,'completed-sft','completed','Training completed successfully','{}','2026-03-04 05:07:25.890123');
INSERT INTO "job_events" VALUES(48,'completed-dpo','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:27.890123');
INSERT INTO "job_events" VALUES(49,'completed-dpo','started','Attempt 1 started as Ray job sienn-completed-dpo-1','{"attempt": 1, "ray_submission_id": "sienn-completed-dpo-1"}','2026-03-04 05:07:29.890123');
INSERT INTO "job_events" VALUES(50,'completed-dpo','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:07:30.890123');
INSERT INTO "job_events" VALUES(51,'completed-dpo','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:07:31.890123');
INSERT INTO "job_events" VALUES(52,'completed-dpo','interrupted','Attempt 1 was lost: its Ray job is gone','{"attempt": 1}','2026-03-04 05:07:33.890123');
INSERT INTO "job_events" VALUES(53,'completed-dpo','queued','Attempt 1 was interrupted; waiting to resume from the last checkpoint','{}','2026-03-04 05:07:33.890123');
INSERT INTO "job_events" VALUES(54,'completed-dpo','started','Attempt 2 started as Ray job sienn-completed-dpo-2','{"attempt": 2, "ray_submission_id": "sienn-completed-dpo-2"}','2026-03-04 05:07:35.890123');
INSERT INTO "job_events" VALUES(55,'completed-dpo','phase','Reading the dataset','{"phase": "loading_data", "attempt": 2}','2026-03-04 05:07:36.890123');
INSERT INTO "job_events" VALUES(56,'completed-dpo','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 2}','2026-03-04 05:07:37.890123');
INSERT INTO "job_events" VALUES(57,'completed-dpo','completed','Training completed successfully','{}','2026-03-04 05:07:39.890123');
INSERT INTO "job_events" VALUES(58,'completed-earlier','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:41.890123');
INSERT INTO "job_events" VALUES(59,'completed-earlier','started','Attempt 1 started as Ray job sienn-completed-earlier-1','{"attempt": 1, "ray_submission_id": "sienn-completed-earlier-1"}','2026-03-04 05:07:43.890123');
INSERT INTO "job_events" VALUES(60,'completed-earlier','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:07:44.890123');
INSERT INTO "job_events" VALUES(61,'completed-earlier','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:07:45.890123');
INSERT INTO "job_events" VALUES(62,'completed-earlier','completed','Training completed successfully','{}','2026-03-04 05:07:47.890123');
INSERT INTO "job_events" VALUES(63,'completed-nan','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:49.890123');
INSERT INTO "job_events" VALUES(64,'completed-nan','started','Attempt 1 started as Ray job sienn-completed-nan-1','{"attempt": 1, "ray_submission_id": "sienn-completed-nan-1"}','2026-03-04 05:07:51.890123');
INSERT INTO "job_events" VALUES(65,'completed-nan','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:07:52.890123');
INSERT INTO "job_events" VALUES(66,'completed-nan','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:07:53.890123');
INSERT INTO "job_events" VALUES(67,'completed-nan','completed','Training completed successfully','{}','2026-03-04 05:07:55.890123');
INSERT INTO "job_events" VALUES(68,'failed-oom','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:07:57.890123');
INSERT INTO "job_events" VALUES(69,'failed-oom','started','Attempt 1 started as Ray job sienn-failed-oom-1','{"attempt": 1, "ray_submission_id": "sienn-failed-oom-1"}','2026-03-04 05:07:59.890123');
INSERT INTO "job_events" VALUES(70,'failed-oom','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:08:00.890123');
INSERT INTO "job_events" VALUES(71,'failed-oom','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:08:01.890123');
INSERT INTO "job_events" VALUES(72,'failed-oom','failed','no memory left; lower batch_size','{"failure_reason": "out_of_memory"}','2026-03-04 05:08:03.890123');
INSERT INTO "job_events" VALUES(73,'failed-lost','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:08:05.890123');
INSERT INTO "job_events" VALUES(74,'failed-lost','started','Attempt 1 started as Ray job sienn-failed-lost-1','{"attempt": 1, "ray_submission_id": "sienn-failed-lost-1"}','2026-03-04 05:08:07.890123');
INSERT INTO "job_events" VALUES(75,'failed-lost','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:08:08.890123');
INSERT INTO "job_events" VALUES(76,'failed-lost','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:08:09.890123');
INSERT INTO "job_events" VALUES(77,'failed-lost','failed','Training was lost 3 times','{"failure_reason": "interrupted"}','2026-03-04 05:08:11.890123');
INSERT INTO "job_events" VALUES(78,'cancelled-waiting','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:08:13.890123');
INSERT INTO "job_events" VALUES(79,'cancelled-waiting','cancelled','Cancelled while it waited','{}','2026-03-04 05:08:14.890123');
INSERT INTO "job_events" VALUES(80,'cancelled-stopping','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:08:16.890123');
INSERT INTO "job_events" VALUES(81,'cancelled-stopping','started','Attempt 1 started as Ray job sienn-cancelled-stopping-1','{"attempt": 1, "ray_submission_id": "sienn-cancelled-stopping-1"}','2026-03-04 05:08:18.890123');
INSERT INTO "job_events" VALUES(82,'cancelled-stopping','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:08:19.890123');
INSERT INTO "job_events" VALUES(83,'cancelled-stopping','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:08:20.890123');
INSERT INTO "job_events" VALUES(84,'cancelled-stopping','cancelled','Cancelled; its run is being stopped','{}','2026-03-04 05:08:22.890123');
INSERT INTO "job_events" VALUES(85,'cancelled-stopped','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:08:24.890123');
INSERT INTO "job_events" VALUES(86,'cancelled-stopped','started','Attempt 1 started as Ray job sienn-cancelled-stopped-1','{"attempt": 1, "ray_submission_id": "sienn-cancelled-stopped-1"}','2026-03-04 05:08:26.890123');
INSERT INTO "job_events" VALUES(87,'cancelled-stopped','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:08:27.890123');
INSERT INTO "job_events" VALUES(88,'cancelled-stopped','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:08:28.890123');
INSERT INTO "job_events" VALUES(89,'cancelled-stopped','cancelled','Cancelled; its run is being stopped','{}','2026-03-04 05:08:30.890123');
INSERT INTO "job_events" VALUES(90,'pending-retried','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:08:33.890123');
INSERT INTO "job_events" VALUES(91,'pending-retried','started','Attempt 1 started as Ray job sienn-pending-retried-1','{"attempt": 1, "ray_submission_id": "sienn-pending-retried-1"}','2026-03-04 05:08:35.890123');
INSERT INTO "job_events" VALUES(92,'pending-retried','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:08:36.890123');
INSERT INTO "job_events" VALUES(93,'pending-retried','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:08:37.890123');
INSERT INTO "job_events" VALUES(94,'pending-retried','failed','broken','{"failure_reason": "internal"}','2026-03-04 05:08:39.890123');
INSERT INTO "job_events" VALUES(95,'pending-retried','retried','Tried again after it was ''failed''','{}','2026-03-04 05:08:40.890123');
INSERT INTO "job_events" VALUES(96,'pending-retried','queued','Waiting to be tried again; a run that left a checkpoint goes on from there','{}','2026-03-04 05:08:40.890123');
INSERT INTO "job_events" VALUES(97,'pending-lost','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:08:42.890123');
INSERT INTO "job_events" VALUES(98,'pending-lost','started','Attempt 1 started as Ray job sienn-pending-lost-1','{"attempt": 1, "ray_submission_id": "sienn-pending-lost-1"}','2026-03-04 05:08:44.890123');
INSERT INTO "job_events" VALUES(99,'pending-lost','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:08:45.890123');
INSERT INTO "job_events" VALUES(100,'pending-lost','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:08:46.890123');
INSERT INTO "job_events" VALUES(101,'pending-lost','interrupted','Attempt 1 was lost: its Ray job is gone','{"attempt": 1}','2026-03-04 05:08:48.890123');
INSERT INTO "job_events" VALUES(102,'pending-lost','queued','Attempt 1 was interrupted; waiting to resume from the last checkpoint','{}','2026-03-04 05:08:48.890123');
INSERT INTO "job_events" VALUES(103,'pending-resumed','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:08:50.890123');
INSERT INTO "job_events" VALUES(104,'pending-resumed','started','Attempt 1 started as Ray job sienn-pending-resumed-1','{"attempt": 1, "ray_submission_id": "sienn-pending-resumed-1"}','2026-03-04 05:08:52.890123');
INSERT INTO "job_events" VALUES(105,'pending-resumed','phase','Reading the dataset','{"phase": "loading_data", "attempt": 1}','2026-03-04 05:08:53.890123');
INSERT INTO "job_events" VALUES(106,'pending-resumed','phase','Training in progress: Epoch 1/3','{"phase": "training", "attempt": 1}','2026-03-04 05:08:54.890123');
INSERT INTO "job_events" VALUES(107,'pending-resumed','phase','Pausing; its run writes a checkpoint and ends','{"phase": "pausing", "attempt": 1}','2026-03-04 05:08:56.890123');
INSERT INTO "job_events" VALUES(108,'pending-resumed','paused','Paused; it goes on from its last checkpoint once it is resumed','{}','2026-03-04 05:08:57.890123');
INSERT INTO "job_events" VALUES(109,'pending-resumed','resumed','Resumed after it was paused','{}','2026-03-04 05:08:58.890123');
INSERT INTO "job_events" VALUES(110,'pending-resumed','queued','Waiting to go on from the last checkpoint','{}','2026-03-04 05:08:58.890123');
INSERT INTO "job_events" VALUES(111,'pending-put-back','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:09:00.890123');
INSERT INTO "job_events" VALUES(112,'pending-put-back','started','Attempt 1 started as Ray job sienn-pending-put-back-1','{"attempt": 1, "ray_submission_id": "sienn-pending-put-back-1"}','2026-03-04 05:09:02.890123');
INSERT INTO "job_events" VALUES(113,'pending-new','created','Fine-tuning job submitted successfully','{}','2026-03-04 05:09:05.890123');
CREATE TABLE job_labels (
	job_id VARCHAR(36) NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (job_id, "key")
);
INSERT INTO "job_labels" VALUES('running-training','team','support');
CREATE TABLE job_metric_points (
	job_id VARCHAR(36) NOT NULL, 
	step BIGINT NOT NULL, 
	attempt INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	loss DOUBLE, 
	eval_loss DOUBLE, 
	learning_rate DOUBLE, 
	tokens_per_s DOUBLE, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (job_id, step)
);
INSERT INTO "job_metric_points" VALUES('running-training',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:06:22.890123');
INSERT INTO "job_metric_points" VALUES('running-training',6,1,2,NULL,0.7,NULL,NULL,'2026-03-04 05:06:23.890123');
INSERT INTO "job_metric_points" VALUES('running-training',7,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:06:26.890123');
INSERT INTO "job_metric_points" VALUES('running-nan',4,1,2,NULL,NULL,NULL,812.4,'2026-03-04 05:06:33.890123');
INSERT INTO "job_metric_points" VALUES('running-pausing',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:06:40.890123');
INSERT INTO "job_metric_points" VALUES('running-overdue',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:06:48.890123');
INSERT INTO "job_metric_points" VALUES('running-resuming',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:06:57.890123');
INSERT INTO "job_metric_points" VALUES('paused-trained',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:07:11.890123');
INSERT INTO "job_metric_points" VALUES('completed-sft',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:07:23.890123');
INSERT INTO "job_metric_points" VALUES('completed-sft',6,1,2,NULL,0.7,NULL,NULL,'2026-03-04 05:07:24.890123');
INSERT INTO "job_metric_points" VALUES('completed-dpo',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:07:32.890123');
INSERT INTO "job_metric_points" VALUES('completed-dpo',8,2,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:07:38.890123');
INSERT INTO "job_metric_points" VALUES('completed-earlier',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:07:46.890123');
INSERT INTO "job_metric_points" VALUES('completed-nan',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:07:54.890123');
INSERT INTO "job_metric_points" VALUES('failed-oom',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:08:02.890123');
INSERT INTO "job_metric_points" VALUES('failed-lost',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:08:10.890123');
INSERT INTO "job_metric_points" VALUES('cancelled-stopping',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:08:21.890123');
INSERT INTO "job_metric_points" VALUES('cancelled-stopped',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:08:29.890123');
INSERT INTO "job_metric_points" VALUES('pending-retried',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:08:38.890123');
INSERT INTO "job_metric_points" VALUES('pending-lost',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:08:47.890123');
INSERT INTO "job_metric_points" VALUES('pending-resumed',4,1,2,0.523,NULL,0.0002,812.4,'2026-03-04 05:08:55.890123');
CREATE TABLE "jobs" (
	seq INTEGER NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	dataset_id VARCHAR(36) NOT NULL, 
	config JSON NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	progress INTEGER NOT NULL, 
	message TEXT NOT NULL, 
	failure_reason VARCHAR(32), 
	attempt INTEGER NOT NULL, 
	submission_id VARCHAR(128), 
	facts JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	validation_dataset_id VARCHAR(36), 
	name TEXT, 
	labels JSON DEFAULT '{}' NOT NULL, 
	idempotency_key VARCHAR(255), 
	request_hash VARCHAR(64), 
	attempt_base INTEGER DEFAULT '0' NOT NULL, 
	started_at DATETIME, 
	ended_at DATETIME, 
	base_model TEXT NOT NULL, 
	PRIMARY KEY (seq), 
	CONSTRAINT fk_jobs_validation_dataset_id FOREIGN KEY(validation_dataset_id) REFERENCES datasets (id), 
	UNIQUE (id), 
	FOREIGN KEY(dataset_id) REFERENCES datasets (id)
);
INSERT INTO "jobs" VALUES(1,'running-new','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','running',0,'Starting the training program',NULL,1,'sienn-running-new-1','{"phase": "starting"}','2026-03-04 05:06:12.890123','2026-03-04 05:06:15.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:06:15.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(2,'running-training','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','running',60,'Training in progress: Epoch 2/3',NULL,1,'sienn-running-training-1','{"phase": "training", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 7, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 700, "train_seconds": 12.345, "eval_loss": 0.7}','2026-03-04 05:06:16.890123','2026-03-04 05:06:26.890123','dataset-4','Ferry','{"team": "support"}',NULL,NULL,0,'2026-03-04 05:06:19.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(3,'running-nan','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','running',40,'Training in progress: Epoch 2/3',NULL,1,'sienn-running-nan-1','{"phase": "training", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": null, "learning_rate": null, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:06:27.890123','2026-03-04 05:06:33.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:06:30.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(4,'running-pausing','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','running',40,'Pausing; its run writes a checkpoint and ends',NULL,1,'sienn-running-pausing-1','{"phase": "pausing", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 400, "train_seconds": 12.345, "pause_requested_at": "2026-03-04T05:06:41.890123+00:00"}','2026-03-04 05:06:34.890123','2026-03-04 05:06:41.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:06:37.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(5,'running-overdue','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','running',40,'Pausing; its run didn''t write a checkpoint in time and is being stopped',NULL,1,'sienn-running-overdue-1','{"phase": "stopping", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 400, "train_seconds": 12.345, "pause_requested_at": "2026-03-04T05:06:49.890123+00:00"}','2026-03-04 05:06:42.890123','2026-03-04 05:06:50.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:06:45.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(6,'running-resuming','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','running',40,'Resumed before its run had paused',NULL,1,'sienn-running-resuming-1','{"phase": "resuming", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:06:51.890123','2026-03-04 05:06:59.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:06:54.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(7,'running-earlier','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','running',0,'Starting the training program',NULL,1,'sienn-running-earlier-1','{"phase": "tokenizing", "num_tokens": "many", "current_loss": 0.25, "history": [{"epoch": 1}], "note": "gr\u00f6\u00dfer"}','2026-03-04 05:07:00.890123','2026-03-04 05:07:04.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:07:03.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(8,'paused-trained','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','paused',40,'Paused; it goes on from its last checkpoint once it is resumed',NULL,1,'sienn-paused-trained-1','{"phase": "paused", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 0.0, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:07:05.890123','2026-03-04 05:07:13.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:07:08.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(9,'paused-waiting','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','paused',0,'Paused while it waited',NULL,0,NULL,'{"phase": "paused", "time_left_s": 0.0}','2026-03-04 05:07:14.890123','2026-03-04 05:07:16.890123',NULL,NULL,'{}',NULL,NULL,0,NULL,NULL,'owner/model');
INSERT INTO "jobs" VALUES(10,'completed-sft','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','completed',100,'Training completed successfully',NULL,1,'sienn-completed-sft-1','{"phase": "completed", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 6, "total_steps": 9, "current_loss": 0.4, "learning_rate": 0.0002, "tokens_per_s": 801.2, "time_left_s": 0.0, "num_tokens": 900, "train_seconds": 20.5, "eval_loss": 0.65, "train_loss": 0.41, "loss_history": [{"epoch": 1, "step": 3, "train_loss": 0.8, "eval_loss": 0.9}, {"epoch": 2, "step": 6, "train_loss": 0.41, "eval_loss": 0.65}], "run_method": "sft", "run_precision": "bfloat16", "run_packed": true, "num_train_rows": 90, "num_eval_rows": 10, "num_dropped_rows": 1, "total_seconds": 33.3, "num_workers": 2, "peak_memory_bytes": 123456789, "rows_per_step": 8, "use_gpu": false, "stop_reason": null, "best_epoch": 2, "best_step": 6, "adapter_size_bytes": 4242}','2026-03-04 05:07:17.890123','2026-03-04 05:07:25.890123',NULL,NULL,'{}','key-1','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',0,'2026-03-04 05:07:20.890123','2026-03-04 05:07:25.890123','owner/model');
INSERT INTO "jobs" VALUES(11,'completed-dpo','dataset-3','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','completed',100,'Training completed successfully',NULL,2,'sienn-completed-dpo-2','{"phase": "completed", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 8, "total_steps": 9, "current_loss": 0.4, "learning_rate": 0.0002, "tokens_per_s": 801.2, "time_left_s": 0.0, "num_tokens": 900, "train_seconds": 20.5, "train_loss": null, "eval_loss": null, "loss_history": [{"epoch": 1, "step": 8, "train_loss": null, "eval_loss": null}], "run_method": "dpo", "run_precision": "bfloat16", "run_packed": true, "num_train_rows": 90, "num_eval_rows": 10, "num_dropped_rows": 1, "total_seconds": 33.3, "num_workers": 2, "peak_memory_bytes": 123456789, "rows_per_step": 8, "use_gpu": false, "stop_reason": "max_train_time_s", "best_epoch": null, "best_step": null, "adapter_size_bytes": 4242}','2026-03-04 05:07:26.890123','2026-03-04 05:07:39.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:07:29.890123','2026-03-04 05:07:39.890123','owner/model');
INSERT INTO "jobs" VALUES(12,'completed-earlier','dataset-2','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','completed',100,'Training completed successfully',NULL,1,'sienn-completed-earlier-1','{"phase": "completed", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 0.0, "num_tokens": 400, "train_seconds": 12.345, "train_loss": 0.5, "loss_history": [{"epoch": 1}], "num_steps": 9, "note": "of an earlier version"}','2026-03-04 05:07:40.890123','2026-03-04 05:07:47.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:07:43.890123','2026-03-04 05:07:47.890123','owner/model');
INSERT INTO "jobs" VALUES(13,'completed-nan','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','completed',100,'Training completed successfully',NULL,1,'sienn-completed-nan-1','{"phase": "completed", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.4, "learning_rate": 0.0002, "tokens_per_s": 801.2, "time_left_s": 0.0, "num_tokens": 900, "train_seconds": 20.5, "train_loss": 0.41, "eval_loss": null, "loss_history": [{"epoch": 1, "step": 3, "train_loss": 0.8, "eval_loss": 0.9}, {"epoch": 2, "step": 6, "train_loss": 0.41, "eval_loss": 0.65}], "run_method": "sft", "run_precision": "bfloat16", "run_packed": true, "num_train_rows": 90, "num_eval_rows": 10, "num_dropped_rows": 1, "total_seconds": 33.3, "num_workers": 2, "peak_memory_bytes": 123456789, "rows_per_step": 8, "use_gpu": false, "stop_reason": null, "best_epoch": 1, "best_step": 6, "adapter_size_bytes": 4242}','2026-03-04 05:07:48.890123','2026-03-04 05:07:55.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:07:51.890123','2026-03-04 05:07:55.890123','owner/model');
INSERT INTO "jobs" VALUES(14,'failed-oom','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','failed',40,'no memory left; lower batch_size','out_of_memory',1,'sienn-failed-oom-1','{"phase": "failed", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:07:56.890123','2026-03-04 05:08:03.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:07:59.890123','2026-03-04 05:08:03.890123','owner/model');
INSERT INTO "jobs" VALUES(15,'failed-lost','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','failed',40,'Training was lost 3 times','interrupted',1,'sienn-failed-lost-1','{"phase": "training", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:08:04.890123','2026-03-04 05:08:11.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:08:07.890123','2026-03-04 05:08:11.890123','owner/model');
INSERT INTO "jobs" VALUES(16,'cancelled-waiting','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','cancelled',0,'Cancelled while it waited',NULL,0,NULL,'{"phase": "cancelled", "time_left_s": 0.0}','2026-03-04 05:08:12.890123','2026-03-04 05:08:14.890123',NULL,NULL,'{}',NULL,NULL,0,NULL,'2026-03-04 05:08:14.890123','owner/model');
INSERT INTO "jobs" VALUES(17,'cancelled-stopping','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','cancelled',40,'Cancelled; its run is being stopped',NULL,1,'sienn-cancelled-stopping-1','{"phase": "stopping", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 0.0, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:08:15.890123','2026-03-04 05:08:22.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:08:18.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(18,'cancelled-stopped','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','cancelled',40,'Cancelled',NULL,1,'sienn-cancelled-stopped-1','{"phase": "cancelled", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 0.0, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:08:23.890123','2026-03-04 05:08:31.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:08:26.890123','2026-03-04 05:08:31.890123','owner/model');
INSERT INTO "jobs" VALUES(19,'pending-retried','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','pending',0,'Waiting to be tried again; a run that left a checkpoint goes on from there',NULL,1,NULL,'{"num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:08:32.890123','2026-03-04 05:08:40.890123',NULL,NULL,'{}',NULL,NULL,1,'2026-03-04 05:08:35.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(20,'pending-lost','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','pending',40,'Attempt 1 was interrupted; waiting to resume from the last checkpoint',NULL,1,NULL,'{"phase": "starting", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 30.5, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:08:41.890123','2026-03-04 05:08:48.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:08:44.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(21,'pending-resumed','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','pending',40,'Waiting to go on from the last checkpoint',NULL,1,NULL,'{"phase": "starting", "timeline": {"wait_and_submit": 1.5, "join_cluster": 0.25, "total": 1.75}, "current_epoch": 2, "total_epochs": 3, "current_step": 4, "total_steps": 9, "current_loss": 0.523, "learning_rate": 0.0002, "tokens_per_s": 812.4, "time_left_s": 0.0, "num_tokens": 400, "train_seconds": 12.345}','2026-03-04 05:08:49.890123','2026-03-04 05:08:58.890123',NULL,NULL,'{}',NULL,NULL,1,'2026-03-04 05:08:52.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(22,'pending-put-back','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','pending',0,'Waiting for Ray''s job API: read timed out',NULL,0,'sienn-pending-put-back-1','{"phase": "starting"}','2026-03-04 05:08:59.890123','2026-03-04 05:09:03.890123',NULL,NULL,'{}',NULL,NULL,0,'2026-03-04 05:09:02.890123',NULL,'owner/model');
INSERT INTO "jobs" VALUES(23,'pending-new','dataset-1','{"base_model": "owner/model", "learning_rate": 0.0002, "num_epochs": 3, "batch_size": 4, "max_length": 512, "gradient_accumulation_steps": 1, "warmup_ratio": 0.06, "weight_decay": 0.0, "lr_scheduler": "cosine", "max_grad_norm": 1.0, "validation_split": 0.1, "num_workers": null, "min_workers": null, "eval_steps": null, "early_stopping_patience": null, "max_train_time_s": null, "precision": "auto", "quantization": null, "gradient_checkpointing": null, "torch_compile": false, "sharding": "auto", "dpo_beta": 0.1, "seed": 42, "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": false, "use_dora": false, "loraplus_lr_ratio": null}}','pending',0,'Fine-tuning job submitted successfully',NULL,0,NULL,'{}','2026-03-04 05:09:04.890123','2026-03-04 05:09:04.890123',NULL,NULL,'{}',NULL,NULL,0,NULL,NULL,'owner/model');
CREATE TABLE metric_gauges (
	source VARCHAR(64) NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	labels TEXT NOT NULL, 
	value DOUBLE NOT NULL, 
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (source, name, labels)
);
CREATE TABLE metric_sources (
	source VARCHAR(64) NOT NULL, 
	last_number BIGINT NOT NULL, 
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (source)
);
CREATE TABLE metric_values (
	name VARCHAR(128) NOT NULL, 
	labels TEXT NOT NULL, 
	value DOUBLE NOT NULL, 
	PRIMARY KEY (name, labels)
);
INSERT INTO "metric_values" VALUES('sienn_jobs_total','{"status":"pending"}',23.0);
INSERT INTO "metric_values" VALUES('sienn_jobs_total','{"status":"running"}',20.0);
INSERT INTO "metric_values" VALUES('sienn_jobs_total','{"status":"completed"}',4.0);
INSERT INTO "metric_values" VALUES('sienn_jobs_total','{"status":"failed"}',3.0);
INSERT INTO "metric_values" VALUES('sienn_jobs_total','{"status":"cancelled"}',3.0);
INSERT INTO "metric_values" VALUES('sienn_queue_wait_seconds_bucket','{"le":"5.0"}',20.0);
INSERT INTO "metric_values" VALUES('sienn_queue_wait_seconds_sum','{}',60.0);
INSERT INTO "metric_values" VALUES('sienn_queue_wait_seconds_count','{}',20.0);
INSERT INTO "metric_values" VALUES('sienn_training_tokens_total','{}',8600.0);
INSERT INTO "metric_values" VALUES('sienn_training_seconds_total','{}',234.33);
INSERT INTO "metric_values" VALUES('sienn_jobs_total','{"status":"paused"}',3.0);
CREATE TABLE signing_keys (
	purpose VARCHAR(32) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (purpose)
);
CREATE INDEX ix_datasets_sha256 ON datasets (sha256);
CREATE UNIQUE INDEX ix_jobs_idempotency_key ON jobs (idempotency_key);
CREATE INDEX ix_jobs_status_ended_at ON jobs (status, ended_at, started_at);
CREATE INDEX ix_jobs_status_seq ON jobs (status, seq);
CREATE INDEX ix_jobs_dataset_id_seq ON jobs (dataset_id, seq);
CREATE INDEX ix_jobs_validation_dataset_id_seq ON jobs (validation_dataset_id, seq);
CREATE INDEX ix_jobs_base_model_seq ON jobs (base_model, seq);
CREATE INDEX ix_jobs_name_seq ON jobs (name, seq);
CREATE INDEX ix_job_labels_key_value ON job_labels ("key", value, job_id);
CREATE INDEX ix_job_events_job_id_seq ON job_events (job_id, seq);
CREATE INDEX ix_exports_job_id ON exports (job_id);
CREATE INDEX ix_exports_status ON exports (status);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('job_events',113);
COMMIT;
